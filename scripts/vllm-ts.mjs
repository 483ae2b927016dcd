#!/usr/bin/env node
// The vllm-ts command. In a checkout it builds what is stale first; in an installed package it
// compiles the native modules once, into the user's cache, unless the package brings them.
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { hashOf, listFiles } from './build/hash.mjs';
import { BuildError, buildNative, nativeTarget } from './build/native.mjs';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const report = (line) => console.error(`build: ${line}`);

async function prepare() {
  if (existsSync(join(root, 'tsconfig.json'))) {
    const { buildTypescript } = await import('./build/typescript.mjs');
    await buildTypescript({ root, report });
    await buildNative({ root, report });
    return;
  }
  if (existsSync(join(root, 'prebuilds', nativeTarget(), 'kernels.node'))) return;
  const sources = ['kernels', 'common/os'].flatMap((folder) =>
    listFiles(root, folder, ['.cc', '.h']),
  );
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const outDir = join(cache, 'vllm-ts', hashOf(root, sources), nativeTarget());
  await buildNative({ root, outDir, report });
  process.env.VLLM_TS_NATIVE_DIR = outDir;
}

try {
  await prepare();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`vllm-ts: ${error.message}`);
  process.exit(1);
}
const bundle = join(root, 'dist/bundle/supervisor.js');
const { main } = await import(pathToFileURL(bundle).href);
await main(process.argv.slice(2));
