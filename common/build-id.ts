// Hash of the build, written by scripts/build.mjs. Two of our processes that differ in it refuse
// each other at the handshake.
import { readFileSync } from 'node:fs';

export const buildId = readFileSync(new URL('../build-id', import.meta.url), 'utf8').trim();
