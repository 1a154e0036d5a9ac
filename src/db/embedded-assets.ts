/**
 * The files that an embedded database starts from, where they travel with the program: `build.ts` puts another module
 * in this one's place. Run from source, PGlite finds its files beside its code, and the template is made once.
 */

export interface EmbeddedAssets {
  /** The archive that `embedded-template.ts` makes. */
  readonly template: string
  /** PGlite's own files, for `Bun.file`, in a compiled binary; null: beside its code. */
  readonly pglite: {
    readonly wasm: string
    readonly data: string
    /** A gzipped tar archive that PGlite can only read from a real file. */
    readonly postgisBundle: string
  } | null
}

/** null: run from source. */
export const EMBEDDED_ASSETS = null as EmbeddedAssets | null
