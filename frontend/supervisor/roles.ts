// What the supervisor knows of each role: who waits for whom, and what the death of one means.
import type { ChildRole } from './child.ts';

/** Processes that others can do without while they are replaced. */
export const isReplaceable = (role: ChildRole) => role !== 'engine';

/** Processes that work as one: when one dies all are replaced, and that counts as one death. */
export const isGroup = (role: ChildRole) => role === 'worker';

/** Links that a starting process needs: it gets its slice when these are ready. */
export const needs: Readonly<Record<ChildRole, readonly ChildRole[]>> = {
  engine: ['detokenizer'],
  detokenizer: [],
  worker: ['engine'],
  frontend: ['engine', 'detokenizer'],
};
