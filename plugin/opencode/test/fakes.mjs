// A skillc server and an OpenCode client that tests can look into.

import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import path from "node:path"

export function makeProject(names) {
  const root = mkdtempSync(path.join(tmpdir(), "skillc-opencode-"))
  process.on("exit", () => rmSync(root, { recursive: true }))
  for (const name of names) {
    mkdirSync(path.join(root, ".skills", name), { recursive: true })
    writeFileSync(path.join(root, ".skills", name, "SKILL.md"), textOf(name))
  }
  return root
}

export function textOf(name) {
  return `---\nname: ${name}\ndescription: About ${name}.\n---\n\n# ${name}\n\n- Run \`${name}\`.\n`
}

export function entry(name, verdict = "adapter", text = textOf(name)) {
  return {
    name,
    verdict,
    problem: null,
    source: `.skills/${name}/SKILL.md`,
    description: `About ${name}.`,
    file_sha256:
      verdict === "adapter" ? createHash("sha256").update(text).digest("hex") : null,
  }
}

/** Serves `state.skills` under a free port; `state.asked` counts. */
export async function skillcServer(skills, context = 4096) {
  const state = { skills, context, asked: 0, keys: [] }
  const server = createServer((request, answer) => {
    state.asked += 1
    state.keys.push(request.headers.authorization)
    const data = {
      "/v1/models": [
        { id: "nano", context_length: state.context },
        ...state.skills.map((skill) => ({ id: `nano:${skill.name}`, parent: "nano" })),
      ],
      "/v1/skills": state.skills,
    }[request.url]
    answer.writeHead(data ? 200 : 404).end(JSON.stringify({ data }))
  })
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready))
  state.url = `http://127.0.0.1:${server.address().port}/v1`
  state.close = () => new Promise((done) => (server.closeAllConnections(), server.close(done)))
  return state
}

/** An OpenCode client over `sessions`: id -> {parentID, messages}. */
export function fakeClient(sessions = {}) {
  const client = { toasts: [], asked: 0 }
  client.session = {
    get: async ({ path: { id } }) => ({ data: { id, parentID: sessions[id]?.parentID } }),
    messages: async ({ path: { id } }) => {
      client.asked += 1
      return { data: sessions[id]?.messages ?? [] }
    },
  }
  client.tui = { showToast: async ({ body }) => void client.toasts.push(body.message) }
  return client
}
