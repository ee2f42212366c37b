import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import path from "node:path"
import { test } from "node:test"

import { covered, look, upwards } from "../server.js"
import { entry, makeProject, skillcServer } from "./fakes.mjs"

test("what a server says", async (t) => {
  const server = await skillcServer([entry("testing")], 512)
  t.after(server.close)
  const seen = await look({ url: server.url, key: "secret" }, 60000)
  assert.equal(seen.base, "nano")
  assert.equal(seen.context, 512)
  assert.deepEqual(seen.skills.map((skill) => skill.name), ["testing"])
  assert.deepEqual(server.keys, ["Bearer secret", "Bearer secret"])
  await server.close()
  assert.equal(await look({ url: server.url }), null)
})

test("only skills whose file is the one that was compiled are covered", async () => {
  const root = makeProject(["testing", "deploy", "style", "notes"])
  const skills = [
    entry("testing"),
    entry("deploy", "adapter", "another text"),
    entry("style", "text"),
    { ...entry("notes"), problem: "broken" },
    entry("elsewhere"),
    { ...entry("testing"), name: "odd name" },
  ]
  const found = await covered({ skills }, [path.join(root, "deeper"), root])
  assert.deepEqual([...found.keys()], ["testing"])
  assert.equal(found.get("testing").file, path.join(root, ".skills/testing/SKILL.md"))
  writeFileSync(path.join(root, ".skills/testing/SKILL.md"), "edited")
  assert.equal((await covered({ skills }, [root])).size, 0)
  assert.equal((await covered(null, [root])).size, 0)
})

test("folders up to the worktree", () => {
  assert.deepEqual(upwards("/a/b/c", "/a"), ["/a/b/c", "/a/b", "/a"])
  assert.deepEqual(upwards("/a/b", "/a/b"), ["/a/b"])
  assert.deepEqual(upwards("/a/b", "/"), ["/a/b"])
  assert.deepEqual(upwards("/a", "/elsewhere"), ["/a", "/"])
})
