// Which file of this package a process runs.
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../common/package-root.ts';
import type { ChildRole } from '../supervisor/child.ts';

/** Processes start in the form in which this one runs: as a bundle, or as tsc left it. */
export function entryPoint(role: ChildRole): string {
  const isBundle = basename(dirname(fileURLToPath(import.meta.url))) === 'bundle';
  return join(packageRoot, 'dist', isBundle ? `bundle/${role}.js` : `${role}/main.js`);
}
