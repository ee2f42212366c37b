// What the plugin adds to OpenCode's configuration.

import { SLIM } from "./slim.js"

export const PROVIDER = "skillc"
export const LARGE = 16384 // tokens of context from which OpenCode's own prompt and tools leave room
const BUILT_IN = ["build", "plan", "general", "explore"]

/** The provider's entry: the base, and the base with each skill pinned. */
export function addProvider(config, { url, key }, seen, skills, fetch) {
  const provider = ((config.provider ??= {})[PROVIDER] ??= {})
  provider.npm ??= "@ai-sdk/openai-compatible"
  provider.name ??= "skillc"
  provider.options = { baseURL: url, apiKey: key || "local", ...provider.options, fetch }
  const models = (provider.models ??= {})
  const limit = { context: seen.context, output: Math.min(2048, Math.floor(seen.context / 4)) }
  const model = { tool_call: true, temperature: true, limit }
  models[seen.base] = { ...model, ...models[seen.base] }
  // The name sent stays the base's: OpenCode picks prompts and tools by pieces of it ("o1", "gpt").
  for (const name of skills.keys())
    models[`${seen.base}:${name}`] ??= { ...model, id: seen.base, name: `${seen.base} + ${name}` }
}

/** The skills that the user did not forbid; a rule of theirs holds for adapters as for text. */
export function permitted(config, skills) {
  const rules = ruleOf(config.permission, "skill")
  return new Map([...skills].filter(([name]) => actionFor(rules, name) !== "deny"))
}

/** The slim agent, and for large contexts a full one; what is there already wins. */
export function addAgents(config, seen, asText) {
  const agents = (config.agent ??= {})
  const model = `${PROVIDER}/${seen.base}`
  const slim = (agents.slim ??= {})
  slim.mode ??= "primary"
  slim.description ??= "Small models: a short prompt, few tools, compiled skills."
  slim.model ??= model
  slim.prompt ??= SLIM.prompt
  slim.permission ??= { "*": "deny", use_skill: "allow" }
  if (typeof slim.permission === "object") {
    for (const tool of ["bash", "edit", "read"]) {
      // The user's own rule for a tool holds in this agent too.
      const rule = ruleOf(config.permission, tool) ?? "allow"
      if ([undefined, "allow"].includes(slim.permission[tool])) slim.permission[tool] = rule
    }
    if (asText.length) {
      const allowed = Object.fromEntries(asText.map((name) => [name, "allow"]))
      slim.permission.skill ??= { "*": "deny", ...allowed }
    }
  }
  if (seen.context >= LARGE)
    agents.full ??= { mode: "primary", description: "All tools, compiled skills.", model }
  // A title would cost a small base more tokens than the work itself.
  const small = config.small_model ?? config.model ?? ""
  if (seen.context < LARGE && small.startsWith(`${PROVIDER}/`)) agents.title ??= { disable: true }
}

/** Hide the text of `names` from agents that run on our provider, `use_skill` from all others. */
export function denyText(config, names) {
  const agents = (config.agent ??= {})
  for (const name of new Set([...BUILT_IN, ...Object.keys(agents)])) {
    const model = agents[name]?.model ?? config.model
    if (!model || agents[name]?.disable) continue
    const agent = (agents[name] ??= {})
    const permission = asObject(agent.permission)
    if (!model.startsWith(`${PROVIDER}/`)) permission.use_skill ??= "deny"
    else if (actionFor(permission.skill ?? permission["*"], "") !== "deny") {
      const denied = Object.fromEntries(names.map((skill) => [skill, "deny"]))
      permission.skill = { ...asObject(permission.skill), ...denied }
    } else continue
    if (Object.keys(permission).length) agent.permission = permission
  }
}

/** A slash command for each skill. */
export function addCommands(config, skills) {
  const commands = (config.command ??= {})
  for (const { name, description } of skills.values())
    commands[name] ??= { template: "$ARGUMENTS", description: `skill: ${description ?? name}` }
}

function asObject(rules) {
  if (rules === undefined) return {}
  return typeof rules === "string" ? { "*": rules } : { ...rules }
}

function ruleOf(permission, tool) {
  if (permission === undefined || typeof permission === "string") return permission
  return permission[tool] ?? permission["*"]
}

/** What the last rule that matches says, as OpenCode reads them. */
function actionFor(rules, name) {
  if (rules === undefined || typeof rules === "string") return rules
  const matches = (pattern) =>
    new RegExp(`^${pattern.split("*").map(escape).join(".*")}$`, "s").test(name)
  return Object.entries(rules).findLast(([pattern]) => matches(pattern))?.[1]
}

function escape(text) {
  return text.replace(/[.+?^${}()|[\]\\]/g, "\\$&")
}
