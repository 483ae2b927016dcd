// A child for the supervisor's tests: a process of any role that does what its slice says.
import { renameSync, writeFileSync } from 'node:fs';
import type { ProcessSlice } from '../../../common/config.ts';
import { StartError } from '../../../common/errors.ts';
import { runProcess } from '../../../common/process.ts';
import type { Role } from '../../../common/wire/messages.ts';

export interface FixtureSlice extends ProcessSlice {
  /** Folder in which each process leaves a file for what happened to it. */
  readonly notes: string;
  /**
   * "fail": ends at start with exit code 65. "stops": stands still at its start. "stubborn": never answers drain or stop.
   * "wants-worker-replaced" (or -engine-): says so when it gets SIGUSR2.
   */
  readonly behaviour: string;
}

const role = process.argv[2] as Role;
runProcess<FixtureSlice>(role, (context) => {
  const { slice, index, generation } = context;
  // Renamed into place: whoever sees a note reads all of it.
  const note = (what: string, text = '') => {
    const path = `${slice.notes}/${role}-${index}.${generation}.${what}`;
    writeFileSync(`${path}.part`, text);
    renameSync(`${path}.part`, path);
  };
  const wanted = /^wants-(worker|engine)-replaced$/.exec(slice.behaviour)?.[1] as Role | undefined;
  if (wanted !== undefined)
    process.on('SIGUSR2', () =>
      context.tell({
        kind: 'replacePeer',
        role: wanted,
        index: 0,
        generation: 0,
        reason: 'hung',
      }),
    );
  note('pid', String(process.pid));
  if (slice.behaviour === 'stops') process.kill(process.pid, 'SIGSTOP');
  if (slice.behaviour === 'fail') throw new StartError(65, 'no such weights');
  const never = new Promise<void>(() => undefined);
  const isStubborn = slice.behaviour === 'stubborn';
  return Promise.resolve({
    info: { device: 'none' },
    drain: (timeoutMs) => {
      note('drain', String(timeoutMs));
      return isStubborn ? never : Promise.resolve();
    },
    peerLost: (lost) => {
      note(`lost-${lost.role}.${lost.generation}`);
    },
    peerReady: (ready) => {
      note(`ready-${ready.role}.${ready.generation}`, JSON.stringify(ready.addresses));
    },
    stop: () => {
      note('stop');
      return isStubborn ? never : Promise.resolve();
    },
  });
});
