// Every message, one tagged union per link and direction, named by its two ends. specs.ts has a check
// for each field of each.
export * from './messages-common.ts';
export * from './messages-frontend.ts';
export * from './messages-nodes.ts';
export * from './messages-server.ts';
