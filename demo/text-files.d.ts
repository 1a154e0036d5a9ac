/** Files that are imported `with { type: 'text' }`. */
declare module '*.tsv' {
  const text: string
  export default text
}
