// What the skillc server says of itself, and which of its skills this project really has.

import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { homedir } from "node:os"
import path from "node:path"

export const DEFAULT_URL = "http://127.0.0.1:8191/v1"
const NAME = /^[A-Za-z0-9_.-]{1,64}$/ // what the header that names skills can carry

/** The server's base and skills; null when it does not answer within `limit` milliseconds. */
export async function look({ url, key }, limit = 1500) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {}
  const get = async (name) => {
    const answer = await fetch(`${url}/${name}`, { headers, signal: AbortSignal.timeout(limit) })
    if (!answer.ok) throw new Error(`${url}/${name}: ${answer.status}`)
    return (await answer.json()).data
  }
  try {
    const [models, skills] = await Promise.all([get("models"), get("skills")])
    const base = models.find((model) => !model.parent)
    return { base: base.id, context: base.context_length ?? 0, skills }
  } catch {
    return null
  }
}

/**
 * The skills whose adapter stands for a SKILL.md of this project (or of the user), byte for byte:
 * name -> {name, description, file}.  All others stay what they are to the agent, plain text.
 */
export async function covered(seen, roots) {
  const found = new Map()
  const checks = (seen?.skills ?? [])
    .filter((skill) => skill.verdict === "adapter" && !skill.problem && skill.file_sha256)
    .filter((skill) => NAME.test(skill.name) && skill.name !== "list")
    .map(async (skill) => [skill, await sameFile(skill, roots)])
  for (const [skill, file] of await Promise.all(checks))
    if (file) found.set(skill.name, { name: skill.name, description: skill.description, file })
  return found
}

async function sameFile(skill, roots) {
  const source = skill.source.replace(/^~(?=\/)/, homedir())
  for (const root of roots) {
    const file = path.resolve(root, source)
    const data = await readFile(file).catch(() => null)
    if (data && createHash("sha256").update(data).digest("hex") === skill.file_sha256) return file
  }
  return null
}

/** The folders from `directory` up to `worktree`, nearest first. */
export function upwards(directory, worktree) {
  const found = [directory]
  // OpenCode calls "/" the worktree of a folder outside of git: there is nothing to look up to.
  if (!worktree || worktree === "/") return found
  for (let at = directory; at !== worktree && path.dirname(at) !== at; )
    found.push((at = path.dirname(at)))
  return found
}
