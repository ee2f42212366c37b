import assert from "node:assert/strict"
import { test } from "node:test"

import { SLIM, SLIM_HEADER, slim, slimmingFetch, withoutEntries } from "../slim.js"

const entryOf = (name) =>
  `  <skill>\n    <name>${name}</name>\n    <description>d</description>\n  </skill>\n`
const listing = (...names) =>
  "Skills provide specialized instructions and workflows for specific tasks.\n" +
  "Use the skill tool to load a skill when a task matches its description.\n" +
  `<available_skills>\n${names.map(entryOf).join("")}</available_skills>`
const long = { description: "long ".repeat(900), parameters: { type: "object", properties: {} } }
const request = (system) => ({
  model: "nano",
  messages: [
    { role: "system", content: system },
    { role: "user", content: "hello" },
  ],
  tools: ["bash", "read", "other"].map((name) => ({ type: "function", function: { name, ...long } })),
})

test("prompt and tools become the slim ones, what is not known stays", () => {
  const body = slim(request("a long prompt\n<env>\n</env>"))
  assert.equal(body.messages[0].content, SLIM.prompt)
  assert.deepEqual(body.messages[1], { role: "user", content: "hello" })
  assert.deepEqual(body.tools[0].function, { name: "bash", ...SLIM.tools.bash })
  assert.equal(body.tools[2].function.description, long.description)
  assert.equal("tools" in slim({ messages: [] }), false)
})

test("a listing of skills that are served as text stays", () => {
  const content = slim(request(`prompt\n${listing("style")}`)).messages[0].content
  assert.equal(content, `${SLIM.prompt}\n${listing("style")}`)
})

test("only marked requests are slimmed, and the mark is not sent", async () => {
  const sent = []
  const fetch = slimmingFetch(async (url, init) => void sent.push([url, init]))
  const body = JSON.stringify(request("long"))
  await fetch("u", { body, headers: { "X-Other": "1" } })
  await fetch("u", { body, headers: { [SLIM_HEADER]: "1", "X-Other": "1" } })
  assert.equal(sent[0][1].body, body)
  assert.equal(JSON.parse(sent[1][1].body).messages[0].content, SLIM.prompt)
  assert.deepEqual([...sent[1][1].headers], [["x-other", "1"]])
})

test("entries leave the listing, and the listing when it is empty", () => {
  const text = `before\n${listing("a", "b")}\nafter`
  assert.equal(withoutEntries(text, new Map([["a", {}]])), `before\n${listing("b")}\nafter`)
  assert.equal(withoutEntries(text, new Set(["a", "b"])), "before\nafter")
  assert.equal(withoutEntries(text, new Set(["c"])), text)
  assert.equal(withoutEntries("no listing", new Set(["a"])), "no listing")
})

test("the slim overhead is small", () => {
  const tools = Object.entries(SLIM.tools).map(([name, tool]) => ({
    type: "function",
    function: { name, ...tool },
  }))
  assert.ok(SLIM.prompt.length + JSON.stringify(tools).length < 1300)
})
