/** Loaded by `bun test` before every run (bunfig.toml): takes the tests' Postgres down after the last test. */
import { afterAll } from 'bun:test'
import { stopBackend } from './backend.ts'

afterAll(stopBackend)
