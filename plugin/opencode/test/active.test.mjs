import assert from "node:assert/strict"
import { test } from "node:test"

import { MAX_ACTIVE, Sessions, header } from "../active.js"
import { fakeClient } from "./fakes.mjs"

const tool = (name, scale, status = "completed") => ({
  type: "tool",
  tool: "use_skill",
  state: { status, metadata: { skillc: { name, scale } } },
})
const said = (name, scale) => ({ type: "text", text: "x", metadata: { skillc: { name, scale } } })

test("a set is read back from the history, in its order, once", async () => {
  const parts = [said("a", 1), tool("b", 0.5), tool("c", 1, "error"), tool("a", 0), { type: "text" }]
  const client = fakeClient({ one: { messages: [{ parts }] } })
  const sessions = new Sessions(client)
  assert.deepEqual([...(await sessions.get("one"))], [["a", 0], ["b", 0.5]])
  await sessions.get("one")
  assert.equal(client.asked, 1)
})

test("a subagent begins with its parent's set and does not change it", async () => {
  const client = fakeClient({
    parent: { messages: [{ parts: [said("a", 1)] }] },
    child: { parentID: "parent" },
  })
  const sessions = new Sessions(client)
  assert.deepEqual([...(await sessions.get("child"))], [["a", 1]])
  await sessions.apply("child", { name: "b", scale: 1 })
  assert.deepEqual([...(await sessions.get("parent"))], [["a", 1]])
})

test("a session that cannot be read is tried again", async () => {
  const client = fakeClient()
  const { get } = client.session
  client.session.get = async () => { throw new Error("not yet") }
  const sessions = new Sessions(client)
  await assert.rejects(sessions.get("one"))
  client.session.get = get
  assert.equal((await sessions.get("one")).size, 0)
})

test("the set has a limit, and dropped sessions are gone", async () => {
  const sessions = new Sessions(fakeClient())
  for (let i = 0; i < MAX_ACTIVE; i++)
    assert.ok(await sessions.apply("one", { name: `s${i}`, scale: 1 }))
  assert.equal(await sessions.apply("one", { name: "more", scale: 1 }), false)
  assert.ok(await sessions.apply("one", { name: "s0", scale: 2 }))
  assert.ok(await sessions.apply("one", { name: "s0", scale: 0 }))
  assert.ok(await sessions.apply("one", { name: "more", scale: 1 }))
  sessions.drop("one")
  assert.equal(sessions.size, 0)
})

test("the header", () => {
  assert.equal(header(new Map([["a", 1], ["b", 0.5]])), "a,b@0.5")
  assert.equal(header([]), "")
})
