// What a build says of the files that it compiles: one line, wherever it goes.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

interface Step {
  readonly number: number;
  readonly total: number;
  readonly module: string;
}
type Report = (line: string, more?: { step?: Step; isOutput?: boolean }) => void;
interface Out {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): void;
}

const { createReport } = (await import(
  pathToFileURL(join(packageRoot, 'scripts/build/progress.mjs')).href
)) as {
  createReport: (prefix: string, options: { out: Out; isVerbose: boolean }) => Report;
};

/** All that is written during a build of two files, of which the second has a warning. */
function said(terminal: object, isVerbose: boolean): string {
  let text = '';
  const out = { ...terminal, write: (more: string) => void (text += more) };
  const report = createReport('build: ', { out, isVerbose });
  const step = { total: 2, module: 'kernels.node' };
  report('tsc');
  report('compile a.cc', { step: { ...step, number: 1 } });
  report('compile folder/b.cc', { step: { ...step, number: 2 } });
  report('b.cc:1: warning: odd\n', { isOutput: true });
  report('built kernels.node');
  return text;
}

const end = 'b.cc:1: warning: odd\nbuild: built kernels.node\n';

t.test('in a file: how many they are', (t) => {
  let text = '';
  const report = createReport('', { out: { write: (more) => (text += more) }, isVerbose: false });
  report('compile os.cc', { step: { number: 1, total: 1, module: 'os.node' } });
  t.equal(text, 'compile 1 file of os.node\n');
  t.equal(said({}, false), `build: tsc\nbuild: compile 2 files of kernels.node\n${end}`);
  t.end();
});

t.test('on a terminal: which one, on a line that is written again', (t) => {
  const clear = '\r\x1b[2K';
  process.env['TERM'] = 'xterm';
  t.equal(
    said({ isTTY: true, columns: 28 }, false),
    `build: tsc\nbuild: 1 of 2: compile a.cc${clear}build: 2 of 2: compile fold${clear}${end}`,
  );
  t.end();
});

t.test('VLLM_LOGGING_LEVEL=DEBUG: each', (t) => {
  for (const isTTY of [false, true])
    t.equal(
      said({ isTTY }, true),
      `build: tsc\nbuild: compile a.cc\nbuild: compile folder/b.cc\n${end}`,
    );
  t.end();
});
