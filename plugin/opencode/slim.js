// The slim agent: OpenCode's requests with a prompt and tools that small models can carry.

import { readFileSync } from "node:fs"

export const SLIM = JSON.parse(readFileSync(new URL("./slim.json", import.meta.url), "utf8"))
export const SLIM_HEADER = "X-Skillc-Slim"
const LISTING =
  /(?:Skills provide specialized instructions[^<]{0,1000})?<available_skills>(.*?)<\/available_skills>\n?/s
const ENTRY = /[ \t]*<skill>.*?<name>(.*?)<\/name>.*?<\/skill>\n?/gs

/** `body` with the slim prompt for its system message and slim schemas for the tools it offers. */
export function slim(body) {
  const messages = body.messages.map((message) => {
    if (message.role !== "system") return message
    // Skills that are served as text are still listed there.
    const listing = LISTING.exec(message.content)?.[0].trim()
    return { ...message, content: listing ? `${SLIM.prompt}\n${listing}` : SLIM.prompt }
  })
  const tools = body.tools?.map((tool) => {
    const short = SLIM.tools[tool.function.name]
    if (!short || tool.function.name === "use_skill") return tool
    return { type: tool.type, function: { name: tool.function.name, ...short } }
  })
  return tools ? { ...body, messages, tools } : { ...body, messages }
}

/** A fetch that slims the requests marked by SLIM_HEADER and leaves all others alone. */
export function slimmingFetch(inner = fetch) {
  return async (url, init) => {
    const headers = new Headers(init?.headers)
    if (!headers.has(SLIM_HEADER)) return inner(url, init)
    headers.delete(SLIM_HEADER)
    headers.delete("content-length")
    const body = JSON.stringify(slim(JSON.parse(init.body)))
    return inner(url, { ...init, headers, body })
  }
}

/** A system text without the entries of `names`; without the listing when it lists no other. */
export function withoutEntries(text, names) {
  return text.replace(LISTING, (block) => {
    let left = 0
    const rest = block.replace(ENTRY, (entry, name) => {
      if (names.has(unescape(name.trim()))) return ""
      left += 1
      return entry
    })
    return left ? rest : ""
  })
}

function unescape(text) {
  return text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&")
}
