/** What an application is told about the connection; `connection-state.ts` has the states behind it. */

/**
 * `connecting`: on the way, for the first time or again after a loss. `connected`: the server has answered the
 * subscription. `disconnected`: over for good, by `disconnect()` or because the server refuses this client.
 */
export type ConnectionStatus = 'connecting' | 'connected' | 'disconnected'
