/**
 * Loaded into a server before its own code: collects garbage all the time, so that the memory that it has is memory in
 * use. It shows what of a peak was garbage that nobody had collected yet.
 */
setInterval(() => Bun.gc(true), 15).unref()
