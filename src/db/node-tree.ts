/**
 * Reads the text form of Postgres' parse trees (`pg_node_tree`: policies, bodies of SQL functions), in which every
 * function, operator and type is an oid already. `policies.ts` walks the trees; `policy-code.ts` looks the oids up.
 */

/** A node, with its fields in the tree's order. */
export interface TreeNode {
  readonly tag: string
  readonly fields: ReadonlyMap<string, TreeValue>
}

/** The bytes of a constant as Postgres keeps it. */
interface TreeBytes {
  readonly bytes: readonly number[]
}

/** `null` is `<>`, the empty value. Other scalars are texts. */
export type TreeValue = string | null | TreeNode | TreeBytes | readonly TreeValue[]

export function isNode(value: TreeValue | undefined): value is TreeNode {
  return typeof value === 'object' && value !== null && 'tag' in value
}

export function isList(value: TreeValue | undefined): value is readonly TreeValue[] {
  return Array.isArray(value)
}

/** Trees that nest deeper are not worth the stack. */
const DEPTH_MAX = 500

/** A parenthesis, or a run of other characters in which a backslash takes the next for itself (`pg_strtok`, read.c). */
const TOKEN = /[(){}]|(?:\\[\s\S]|[^\s(){}\\])+/g

/** Null for a text that does not have the form of a tree, wholly. */
export function parseNodeTree(text: string): TreeValue | undefined {
  const tokens: readonly string[] = text.match(TOKEN) ?? []
  let at = 0

  const node = (depth: number): TreeNode => {
    const tag = word(tokens[at++])
    const fields = new Map<string, TreeValue>()
    while (tokens[at] !== '}') {
      // A label is followed by exactly one value, which may look like a label (an alias named ":x").
      const label = word(tokens[at++])
      if (!label.startsWith(':') || fields.has(label.slice(1))) throw new SyntaxError(label)
      const read = value(depth)
      fields.set(label.slice(1), tokens[at] === '[' && label === ':constvalue' ? bytes(read) : read)
    }
    at++
    return { tag, fields }
  }
  const value = (depth: number): TreeValue => {
    if (depth > DEPTH_MAX) throw new SyntaxError('too deep')
    const token = tokens[at++]
    if (token === '{') return node(depth + 1)
    if (token !== '(') return token === '<>' ? null : word(token)
    const items: TreeValue[] = []
    while (tokens[at] !== ')') items.push(value(depth + 1))
    at++
    return items
  }
  /** `4 [ 1 0 0 0 ]`: a length, and that many signed bytes. */
  const bytes = (length: TreeValue): TreeBytes => {
    const end = tokens.indexOf(']', at)
    const list = tokens.slice(at + 1, end).map(Number)
    if (end < 0 || !list.every(Number.isInteger)) throw new SyntaxError('bytes')
    // By-value constants are written with as many bytes as the machine's word has, whatever their length.
    if (list.length < Number(length)) throw new SyntaxError('bytes')
    at = end + 1
    return { bytes: list.map((byte) => byte & 255) }
  }
  try {
    const tree = value(0)
    return at === tokens.length ? tree : undefined
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

function word(token: string | undefined): string {
  if (token === undefined || /^[(){}]$/.test(token)) throw new SyntaxError('a word was expected')
  return token.replaceAll(/\\([\s\S])/g, '$1')
}
