// Which skills each session has switched on.

export const MAX_ACTIVE = 8 // what the server attaches to one request

/**
 * The active sets, by session.  What is not known (after a restart, `--continue` or a fork) is read
 * back from the session's history: every activation is stamped there as `metadata.skillc`.
 */
export class Sessions {
  #sets = new Map()
  #client

  constructor(client) {
    this.#client = client
  }

  /** The session's set, name -> scale. */
  get(id) {
    if (!this.#sets.has(id)) {
      const made = this.#restore(id)
      this.#sets.set(id, made)
      made.catch(() => this.#sets.delete(id))
    }
    return this.#sets.get(id)
  }

  /** Carry out a stamp; false when the set is full. */
  async apply(id, stamp) {
    return apply(await this.get(id), stamp)
  }

  drop(id) {
    this.#sets.delete(id)
  }

  get size() {
    return this.#sets.size
  }

  async #restore(id) {
    const [session, messages] = await Promise.all([
      this.#client.session.get({ path: { id } }),
      this.#client.session.messages({ path: { id } }),
    ])
    const parent = session.data?.parentID
    // A subagent works with what its parent had switched on.
    const set = new Map(parent ? await this.get(parent) : [])
    for (const { parts } of messages.data ?? [])
      for (const part of parts) {
        const stamp = stampOf(part)
        if (stamp) apply(set, stamp)
      }
    return set
  }
}

function stampOf(part) {
  if (part.type === "text") return part.metadata?.skillc
  if (part.type !== "tool" || part.tool !== "use_skill") return undefined
  return part.state?.status === "completed" ? part.state.metadata?.skillc : undefined
}

/** Scale 0 stays in the set: it also switches off what is on from the start. */
function apply(set, { name, scale }) {
  const others = [...set].filter(([other, at]) => at > 0 && other !== name).length
  if (scale > 0 && others >= MAX_ACTIVE) return false
  set.set(name, scale)
  return true
}

/** The value of the header that names the skills of a request: `a,b@0.5`. */
export function header(set) {
  return [...set].map(([name, scale]) => (scale === 1 ? name : `${name}@${scale}`)).join(",")
}
