#!/usr/bin/env node
// The vllm-ts command. In a checkout it builds what is stale first; in an installed package it
// compiles the native modules once, into the user's cache, unless the package brings them.
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { BuildError } from './build/compiler.mjs';
import { buildNative, nativeTarget } from './build/native.mjs';
import { createReport } from './build/progress.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
/** When the first thing was found that had to be built, in ms of this process. */
let buildingSinceMs = null;
const say = createReport('build: ');
const report = (line, more) => {
  buildingSinceMs ??= performance.now();
  say(line, more);
};

const isCheckout = existsSync(join(root, 'tsconfig.json'));

/** The folder that has the native modules, built or compiled where need be. */
async function prepareNative() {
  const target = nativeTarget();
  const prebuilt = join(root, 'prebuilds', target);
  if (!isCheckout && existsSync(join(prebuilt, 'kernels.node'))) return prebuilt;
  const outDir = isCheckout ? join(root, 'build', target) : join(userCache(), target);
  await buildNative({ root, outDir, report });
  return outDir;
}

function userCache() {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  // The hash of all sources, native ones included: versions do not share a folder.
  return join(cache, 'vllm-ts', readFileSync(join(root, 'dist/build-id'), 'utf8').trim());
}

async function orExit(prepare) {
  try {
    return await prepare();
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    const hint = isCheckout
      ? '; run npm run build as its owner'
      : '; XDG_CACHE_HOME names another cache';
    console.error(`vllm-ts: ${error.message}${error.isUnwritable ? hint : ''}`);
    process.exit(1);
  }
}

if (isCheckout) {
  const { buildTypescript } = await import('./build/typescript.mjs');
  await orExit(() => buildTypescript({ root, report }));
}
const bundle = join(root, 'dist/bundle/supervisor.js');
const { main } = await import(pathToFileURL(bundle).href);
// Help, the version and a command line that is wrong need nothing native.
await main(process.argv.slice(2), async () => {
  process.env.VLLM_TS_NATIVE_DIR = await orExit(prepareNative);
  return buildingSinceMs === null ? 0 : performance.now() - buildingSinceMs;
});
