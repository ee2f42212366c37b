// OpenCode plugin: skills as adapters of a local skillc server instead of text in the prompt.

import { existsSync } from "node:fs"
import { readFile, readdir } from "node:fs/promises"
import path from "node:path"

import { MAX_ACTIVE, Sessions, header } from "./active.js"
import { LARGE, PROVIDER, addAgents, addCommands, addProvider, denyText, permitted } from "./config.js"
import { DEFAULT_URL, covered, look, upwards } from "./server.js"
import { SLIM, SLIM_HEADER, slimmingFetch, withoutEntries } from "./slim.js"

const QUIET = new Set(["title", "summary", "compaction"]) // agents that work on the conversation
const SHOWN = 30 // names in the tool's schema; more are a matter for "list"
const AUTO = 3 // skills that the slim agent has switched on from the start
const SCALED = { type: "number", description: "Strength: 1 unless given, 0 switches it off." }
const SCALE = /^@(\d+(?:\.\d+)?)(?:\s+|$)/

/**
 * Options: `url` of the server (default: the provider's baseURL, then 127.0.0.1:8191), `active`: the
 * skills that are on from the start, "all", or "auto" (the default: all of up to three, slim agent),
 * `wait`: milliseconds after which a server that does not answer is taken to be down (1500).
 */
export const SkillcPlugin = async (input, options = {}) => {
  const { client, directory, worktree } = input
  const roots = upwards(directory, worktree)
  const sessions = new Sessions(client)
  const providers = new Map() // session -> provider of its last request
  let server = { url: options.url ?? DEFAULT_URL }
  let skills = new Map()
  let large = false // whether the base has room for more than the slim agent's schemas
  let config = {}
  const slimmed = slimmingFetch()

  async function refresh() {
    const seen = await look(server, Number(process.env.SKILLC_WAIT ?? options.wait ?? 1500))
    if (seen) skills = permitted(config, await covered(seen, roots))
    if (seen) large = seen.context >= LARGE
    return seen
  }

  const hooks = {
    config: async (cfg) => {
      config = { permission: structuredClone(cfg.permission) }
      addFolder(cfg, roots)
      const provider = cfg.provider?.[PROVIDER]?.options
      const url = process.env.SKILLC_URL ?? options.url ?? provider?.baseURL ?? DEFAULT_URL
      server = { url: url.replace(/\/+$/, ""), key: provider?.apiKey }
      const seen = await refresh()
      if (!seen) {
        // The server may be started later: its requests then have the right form, and the skills'
        // text, which stays where it is, is recognised by the server.
        if (cfg.provider?.[PROVIDER]) addProvider(cfg, server, known(cfg), skills, slimmed)
        if (cfg.provider?.[PROVIDER]) addAgents(cfg, known(cfg), ["*"])
        return say(client, `no server at ${server.url}: skills stay text (skillc serve)`)
      }
      addProvider(cfg, server, seen, skills, slimmed)
      const asText = seen.skills.filter((skill) => skill.verdict === "text")
      addAgents(cfg, seen, asText.map((skill) => skill.name))
      denyText(cfg, [...skills.keys()])
      addCommands(cfg, skills)
      if (skills.size) hooks.tool = { use_skill: useSkill }
    },

    event: async ({ event }) => {
      if (event.type !== "session.deleted") return
      sessions.drop(event.properties.info.id)
      providers.delete(event.properties.info.id)
    },

    // A skill that was deleted since must not be asked for any more: it would be a 404.
    "chat.message": async () => {
      if (hooks.tool) await refresh()
    },

    "command.execute.before": async ({ command, sessionID, arguments: words }, output) => {
      if (!skills.has(command)) return
      const scaled = SCALE.exec(words)
      const stamp = { name: command, scale: scaled ? Number(scaled[1]) : 1 }
      if (!(await sessions.apply(sessionID, stamp))) return
      const part = output.parts.find((one) => one.type === "text")
      if (!part) return
      part.text = words.replace(SCALE, "").trim() || `Follow the skill ${command}.`
      part.metadata = { ...part.metadata, skillc: stamp }
    },

    "chat.headers": async ({ sessionID, agent, model }, output) => {
      providers.set(sessionID, model.providerID)
      const name = typeof agent === "string" ? agent : agent?.name
      if (model.providerID !== PROVIDER || QUIET.has(name)) return
      const set = new Map([...started(name), ...(await sessions.get(sessionID))])
      const pinned = /^[^:]+:(.+)$/.exec(model.id)?.[1]
      if (pinned && !set.has(pinned)) set.set(pinned, 1)
      if (name === "slim") output.headers[SLIM_HEADER] = "1"
      if (!hooks.tool) return // what the messages say decides
      const on = [...set].filter(([skill, scale]) => skills.has(skill) && scale > 0)
      output.headers["X-Skillc-Skills"] = header(on.slice(-MAX_ACTIVE))
    },

    "experimental.chat.system.transform": async ({ model }, output) => {
      if (model?.providerID !== PROVIDER) return
      output.system.forEach((text, i) => (output.system[i] = withoutEntries(text, skills)))
    },

    "tool.definition": async ({ toolID }, output) => {
      if (toolID !== "use_skill") return
      const { description, parameters } = structuredClone(SLIM.tools.use_skill)
      const names = [...skills.keys()].sort()
      const listable = large || names.length > SHOWN
      const shown = large ? [...names, "list"] : names
      parameters.properties.name =
        names.length > SHOWN ? { type: "string" } : { type: "string", enum: shown }
      if (large) parameters.properties.scale = SCALED
      output.description = listable ? `${description} The name "list" lists them.` : description
      output.jsonSchema = parameters
    },
  }

  /** What is on before anybody has switched anything: options, or a few skills for the slim agent. */
  function started(agent) {
    const names = process.env.SKILLC_ACTIVE?.split(",").filter(Boolean) ?? options.active ?? "auto"
    if (Array.isArray(names)) return names.map((name) => [name.trim(), 1])
    const all = names === "all" || (agent === "slim" && skills.size <= AUTO)
    return all ? [...skills.keys()].map((name) => [name, 1]) : []
  }

  const useSkill = {
    description: SLIM.tools.use_skill.description,
    args: SLIM.tools.use_skill.parameters.properties,
    execute: async (args, context) => {
      const { sessionID } = context
      const skill = skills.get(args.name)
      const set = await sessions.get(sessionID)
      if (args.name === "list" || !skill) return listed(args.name, set)
      if (providers.get(sessionID) !== PROVIDER) return textOf(skill)
      const scale = Number.isFinite(args.scale) ? Math.min(Math.max(args.scale, 0), 4) : 1
      const patterns = [skill.name]
      await context.ask({ permission: "use_skill", patterns, always: patterns, metadata: {} })
      if (!(await sessions.apply(sessionID, { name: skill.name, scale })))
        return `${MAX_ACTIVE} skills are on; switch one off first with scale 0.`
      return {
        title: skill.name,
        output: scale ? `${skill.name} is on.${await filesOf(skill)}` : `${skill.name} is off.`,
        metadata: { skillc: { name: skill.name, scale } },
      }
    },
  }

  function listed(name, set) {
    const lines = [...skills.values()].map((skill) => {
      const scale = set.get(skill.name)
      const state = scale ? ` (on, scale ${scale})` : ""
      return `${skill.name}${state}: ${skill.description ?? ""}`
    })
    const first = name === "list" ? [] : [`There is no skill ${name}.`]
    return [...first, ...lines].join("\n")
  }

  return hooks
}

/** What the configuration says of a server that does not answer. */
function known(cfg) {
  const [base, model] = Object.entries(cfg.provider[PROVIDER].models ?? {})[0] ?? ["base", {}]
  return { base, context: model.limit?.context ?? 0 }
}

/** OpenCode does not look into .skills/ by itself; so that no skill is lost when the server is. */
function addFolder(cfg, roots) {
  const folder = roots.map((root) => path.join(root, ".skills")).find(existsSync)
  if (!folder) return
  cfg.skills = { ...cfg.skills, paths: [...(cfg.skills?.paths ?? []), folder] }
}

/** One line to the user: on standard error of `opencode run`, as a notice in the interface. */
function say(client, line) {
  const message = `skillc: ${line}`
  if (process.argv.includes("run")) process.stderr.write(`${message}\n`)
  // The interface may not be there yet, and the server that is asked may be starting: never wait.
  else client.tui?.showToast?.({ body: { message, variant: "warning" } })?.catch?.(() => {})
}

/** For a model of another provider, where no adapter can act: the text. */
async function textOf(skill) {
  const text = await readFile(skill.file, "utf8")
  const body = text.replace(/^---[^\n]*\n.*?\n---[^\n]*\n/s, "").trim()
  return `# Skill: ${skill.name}\n\n${body}\n\nBase directory: ${path.dirname(skill.file)}`
}

async function filesOf(skill) {
  const folder = path.dirname(skill.file)
  const others = (await readdir(folder)).filter((name) => name !== path.basename(skill.file))
  return others.length ? ` Its files: ${folder}` : ""
}
