import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import path from "node:path"
import { afterEach, test } from "node:test"

import * as plugin from "../skillc.js"
import { entry, fakeClient, makeProject, skillcServer, textOf } from "./fakes.mjs"

const OURS = { providerID: "skillc", id: "nano" }
const OTHER = { providerID: "other", id: "large" }
const NAMES = ["deploy", "style", "testing"]
const open = []

afterEach(async () => {
  for (const server of open.splice(0)) await server.close()
})

async function start({ names = NAMES, skills = names.map((name) => entry(name)), ...more } = {}) {
  const root = makeProject(names)
  const server = await skillcServer(skills, more.context)
  open.push(server)
  const client = fakeClient(more.sessions)
  const options = { url: server.url, wait: 60000, ...more.options }
  const input = { client, directory: root, worktree: root }
  const hooks = await plugin.SkillcPlugin(input, options)
  const config = more.config ?? { model: "skillc/nano" }
  if (more.down) await server.close()
  await hooks.config(config)
  const headers = async (agent = "build", model = OURS, sessionID = "one") => {
    const output = { headers: {} }
    await hooks["chat.headers"]({ sessionID, agent, model }, output)
    return output.headers
  }
  const use = async (args, sessionID = "one") => {
    const asked = []
    const ask = async (request) => void asked.push(request)
    const result = await hooks.tool.use_skill.execute(args, { sessionID, ask })
    return { ...(typeof result === "string" ? { output: result } : result), asked }
  }
  return { root, server, client, hooks, config, headers, use }
}

test("every export is a function, as OpenCode asks", () => {
  for (const value of Object.values(plugin)) assert.equal(typeof value, "function")
})

test("provider, models, agents, commands, folder", async () => {
  const { config, root, server } = await start()
  const { skillc } = config.provider
  assert.equal(skillc.options.baseURL, server.url)
  assert.equal(typeof skillc.options.fetch, "function")
  assert.deepEqual(Object.keys(skillc.models), ["nano", ...NAMES.map((name) => `nano:${name}`)])
  assert.equal(skillc.models["nano:testing"].id, "nano")
  assert.deepEqual(skillc.models.nano.limit, { context: 4096, output: 1024 })
  assert.equal(config.agent.slim.permission["*"], "deny")
  assert.equal(config.agent.slim.permission.bash, "allow")
  assert.equal(config.agent.full, undefined)
  assert.deepEqual(config.agent.title, { disable: true })
  assert.deepEqual(Object.keys(config.command), NAMES)
  assert.deepEqual(config.skills.paths, [path.join(root, ".skills")])
})

test("a large context gets the full agent and keeps its titles", async () => {
  const { config } = await start({ context: 32768 })
  assert.equal(config.agent.full.model, "skillc/nano")
  assert.equal(config.agent.title?.disable, undefined)
})

test("the user's configuration wins", async () => {
  const config = {
    model: "skillc/nano",
    permission: { bash: "ask", skill: { "de*": "deny" } },
    provider: { skillc: { name: "mine", models: { nano: { limit: { context: 9 } } } } },
    agent: { slim: { prompt: "mine", permission: { "*": "deny", edit: "deny" } } },
    command: { testing: { template: "mine" } },
  }
  const { hooks } = await start({ config })
  assert.equal(config.provider.skillc.name, "mine")
  assert.equal(config.provider.skillc.models.nano.limit.context, 9)
  assert.equal(config.agent.slim.prompt, "mine")
  assert.deepEqual(config.agent.slim.permission, { "*": "deny", bash: "ask", edit: "deny", read: "allow" })
  assert.equal(config.command.testing.template, "mine")
  assert.equal(config.command.deploy, undefined) // they forbade that skill
  const output = {}
  await hooks["tool.definition"]({ toolID: "use_skill" }, output)
  assert.deepEqual(output.jsonSchema.properties.name.enum, ["style", "testing"])
})

test("text is denied for adapters only, and to agents of this provider only", async () => {
  const skills = [entry("deploy"), entry("style", "text"), entry("testing")]
  const config = {
    model: "skillc/nano",
    agent: { review: { model: "other/large" }, ask: { permission: "ask" }, none: { permission: "deny" } },
  }
  await start({ skills, config })
  const denied = { deploy: "deny", testing: "deny" }
  assert.deepEqual(config.agent.build.permission.skill, denied)
  assert.deepEqual(config.agent.ask.permission, { "*": "ask", skill: denied })
  assert.equal(config.agent.none.permission, "deny")
  assert.deepEqual(config.agent.review.permission, { use_skill: "deny" })
  assert.deepEqual(config.agent.slim.permission.skill, { "*": "deny", style: "allow" })
})

test("with a default model that is not known, nothing is denied", async () => {
  const { config } = await start({ config: {} })
  assert.equal(config.agent.build, undefined)
})

test("the listing loses what an adapter stands for, for this provider's models", async () => {
  const { hooks } = await start({ skills: [entry("deploy")] })
  const one = (name) => `<skill><name>${name}</name><description>d</description></skill>`
  const text = `<available_skills>${one("deploy")}${one("style")}</available_skills>`
  const system = [text]
  await hooks["experimental.chat.system.transform"]({ model: OTHER }, { system })
  assert.deepEqual(system, [text])
  await hooks["experimental.chat.system.transform"]({ model: OURS }, { system })
  assert.deepEqual(system, [`<available_skills>${one("style")}</available_skills>`])
})

test("activate, scale, switch off, list", async () => {
  const { headers, use } = await start()
  assert.deepEqual(await headers(), { "X-Skillc-Skills": "" })
  const done = await use({ name: "testing" })
  assert.equal(done.output, "testing is on.")
  assert.deepEqual(done.metadata, { skillc: { name: "testing", scale: 1 } })
  assert.deepEqual(done.asked[0].patterns, ["testing"])
  await use({ name: "deploy", scale: 0.5 })
  assert.deepEqual(await headers(), { "X-Skillc-Skills": "testing,deploy@0.5" })
  assert.match((await use({ name: "list" })).output, /^testing \(on, scale 1\): About testing\.$/m)
  assert.equal((await use({ name: "testing", scale: 0 })).output, "testing is off.")
  assert.deepEqual(await headers(), { "X-Skillc-Skills": "deploy@0.5" })
  const unknown = await use({ name: "nothing" })
  assert.match(unknown.output, /^There is no skill nothing\./)
  assert.equal(unknown.metadata, undefined)
  assert.deepEqual(await headers("build", OURS, "two"), { "X-Skillc-Skills": "" })
})

test("other providers, titles and compaction get no header", async () => {
  const { headers, use } = await start()
  await use({ name: "testing" })
  assert.deepEqual(await headers("build", OTHER), {})
  assert.deepEqual(await headers("title"), {})
  assert.deepEqual(await headers("compaction"), {})
})

test("where no adapter can act, the skill is its text", async () => {
  const { headers, use } = await start()
  await headers("build", OTHER)
  const done = await use({ name: "testing" })
  assert.match(done.output, /^# Skill: testing\n\n# testing\n\n- Run `testing`\.\n\nBase directory: /)
  assert.deepEqual(await headers("build", OURS), { "X-Skillc-Skills": "" })
})

test("the slim agent is marked and has up to three skills on from the start", async () => {
  const few = await start()
  assert.deepEqual(await few.headers("slim"), {
    "X-Skillc-Skills": "deploy,style,testing",
    "X-Skillc-Slim": "1",
  })
  await few.use({ name: "style", scale: 0 })
  assert.equal((await few.headers("slim"))["X-Skillc-Skills"], "deploy,testing")
  const many = await start({ names: [...NAMES, "release"] })
  assert.equal((await many.headers("slim"))["X-Skillc-Skills"], "")
  const asked = await start({ names: [...NAMES, "release"], options: { active: ["release"] } })
  assert.equal((await asked.headers())["X-Skillc-Skills"], "release")
  const all = await start({ options: { active: "all" } })
  assert.equal((await all.headers())["X-Skillc-Skills"], "deploy,style,testing")
})

test("never more skills than the server takes", async () => {
  const names = Array.from({ length: 12 }, (_, i) => `skill-${i}`)
  const { headers, use } = await start({ names, options: { active: "all" } })
  assert.equal((await headers())["X-Skillc-Skills"].split(",").length, 8)
  for (const name of names.slice(0, 8)) await use({ name })
  assert.match((await use({ name: "skill-9" })).output, /^8 skills are on/)
})

test("a pinned model is one more skill", async () => {
  const { headers } = await start()
  const pinned = { providerID: "skillc", id: "nano:testing" }
  assert.equal((await headers("build", pinned))["X-Skillc-Skills"], "testing")
})

test("slash commands switch on, with a scale if asked", async () => {
  const { hooks, headers } = await start()
  const run = async (command, words) => {
    const parts = [{ type: "text", text: words }]
    await hooks["command.execute.before"]({ command, sessionID: "one", arguments: words }, { parts })
    return parts[0]
  }
  const part = await run("testing", "run the checks")
  assert.equal(part.text, "run the checks")
  assert.deepEqual(part.metadata.skillc, { name: "testing", scale: 1 })
  assert.equal((await run("deploy", "@0.5 go")).text, "go")
  assert.equal((await run("style", "")).text, "Follow the skill style.")
  assert.equal((await run("init", "x")).metadata, undefined)
  assert.equal((await headers())["X-Skillc-Skills"], "testing,deploy@0.5,style")
})

test("the set survives a restart, and a subagent has it", async () => {
  const stamped = { type: "text", text: "x", metadata: { skillc: { name: "testing", scale: 1 } } }
  const sessions = { one: { messages: [{ parts: [stamped] }] }, child: { parentID: "one" } }
  const { headers } = await start({ sessions })
  assert.equal((await headers())["X-Skillc-Skills"], "testing")
  assert.equal((await headers("general", OURS, "child"))["X-Skillc-Skills"], "testing")
})

test("a large base is also offered the scale and the list", async () => {
  const schema = async (context) => {
    const { hooks } = await start({ context })
    const output = {}
    await hooks["tool.definition"]({ toolID: "use_skill" }, output)
    return output
  }
  const large = await schema(32768)
  assert.deepEqual(large.jsonSchema.properties.name.enum, [...NAMES, "list"])
  assert.equal(large.jsonSchema.properties.scale.type, "number")
  assert.match(large.description, /"list"/)
  const small = await schema(4096)
  assert.deepEqual(small.jsonSchema.properties, { name: { type: "string", enum: NAMES } })
})

test("the set survives compaction", async () => {
  const stamped = { type: "text", text: "x", metadata: { skillc: { name: "testing", scale: 0.5 } } }
  const summary = { type: "text", text: "What was done.", metadata: {} }
  const messages = [
    { info: { role: "user" }, parts: [stamped] },
    { info: { role: "user" }, parts: [{ type: "compaction", auto: true }] },
    { info: { role: "assistant", summary: true }, parts: [summary] },
  ]
  const { headers, use } = await start({ sessions: { one: { messages } } })
  assert.deepEqual(await headers("compaction"), {})
  assert.equal((await headers())["X-Skillc-Skills"], "testing@0.5")
  await use({ name: "deploy" })
  assert.equal((await headers())["X-Skillc-Skills"], "testing@0.5,deploy")
})

test("a deleted session is forgotten", async () => {
  const { hooks, client, headers } = await start()
  await headers()
  const event = { type: "session.deleted", properties: { info: { id: "one" } } }
  await hooks.event({ event })
  await headers()
  assert.equal(client.asked, 2)
})

test("a skill that is gone or edited is not asked for any more", async () => {
  const { hooks, headers, use, server, root } = await start()
  await headers()
  await use({ name: "testing" })
  await use({ name: "style" })
  server.skills = server.skills.filter((skill) => skill.name !== "testing")
  await hooks["chat.message"]({}, {})
  assert.equal((await headers())["X-Skillc-Skills"], "style")
  writeFileSync(path.join(root, ".skills/style/SKILL.md"), "edited")
  await hooks["chat.message"]({}, {})
  assert.equal((await headers())["X-Skillc-Skills"], "")
  writeFileSync(path.join(root, ".skills/style/SKILL.md"), textOf("style"))
  await hooks["chat.message"]({}, {})
  assert.equal((await headers())["X-Skillc-Skills"], "style")
})

test("no server: nothing is denied, text stays, one line says so", async () => {
  const { config, client, hooks, headers, root } = await start({ down: true })
  assert.deepEqual(config, { model: "skillc/nano", skills: { paths: [path.join(root, ".skills")] } })
  assert.equal(hooks.tool, undefined)
  assert.equal(client.toasts.length, 1)
  assert.match(client.toasts[0], /^skillc: no server at .*: skills stay text/)
  assert.deepEqual(await headers(), {})
})

test("no server, but a provider from `skillc init opencode`: it may be started later", async () => {
  const models = { nano: { limit: { context: 4096 } } }
  const config = { provider: { skillc: { options: {}, models } } }
  await start({ down: true, config })
  assert.equal(typeof config.provider.skillc.options.fetch, "function")
  assert.deepEqual(config.agent.slim.permission.skill, { "*": "allow" })
  assert.equal(config.agent.slim.model, "skillc/nano")
})

test("many skills are not spelled out in the schema", async () => {
  const names = Array.from({ length: 31 }, (_, i) => `skill-${i}`)
  const { hooks } = await start({ names })
  const output = {}
  await hooks["tool.definition"]({ toolID: "use_skill" }, output)
  assert.deepEqual(output.jsonSchema.properties.name, { type: "string" })
  assert.match(output.description, /"list"/)
  const other = {}
  await hooks["tool.definition"]({ toolID: "bash" }, other)
  assert.deepEqual(other, {})
})
