// Every limit that a process is told has a flag which raises it, and every such flag is documented.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  defaultHttpLimits,
  defaultHttpTimeouts,
  defaultReaderLimits,
  defaultRequestLimits,
  defaultTextLimits,
} from '../../../common/limits.ts';
import { packageRoot } from '../../../common/package-root.ts';
import type { Flags } from '../../../frontend/cli/flags.ts';
import { limitFlags } from '../../../frontend/cli/limit-flags.ts';
import {
  httpLimits,
  httpTimeouts,
  readerLimits,
  requestLimits,
  textLimits,
} from '../../../frontend/cli/limits.ts';
import { parseCommandLine } from '../../../frontend/cli/parse.ts';

const parse = (...argv: string[]) => parseCommandLine(['serve', ...argv], '0.0.0')!.flags;

/** Every limit of every process, by a name of its own. */
function limitsOf(flags: Flags): ReadonlyMap<string, number> {
  const all = {
    engine: requestLimits(flags),
    text: textLimits(flags),
    readers: readerLimits(flags),
    http: httpLimits(flags),
    timeouts: httpTimeouts(flags),
  };
  return new Map(
    Object.entries(all).flatMap(([process, limits]) =>
      Object.entries(limits).map(([name, value]) => [`${process}.${name}`, value as number]),
    ),
  );
}

t.test('the flags have the defaults that are documented in code', (t) => {
  const flags = parse();
  t.same(requestLimits(flags), defaultRequestLimits);
  t.same(textLimits(flags), defaultTextLimits);
  t.same(readerLimits(flags), defaultReaderLimits);
  t.same(httpLimits(flags), defaultHttpLimits);
  t.same(httpTimeouts(flags), defaultHttpTimeouts);
  t.end();
});

t.test('each limit is raised by one flag', (t) => {
  const before = limitsOf(parse());
  const raised = new Map<string, string>();
  for (const { name, default: initial } of Object.values(limitFlags)) {
    const after = limitsOf(parse(name, String(initial + 1)));
    const own = [...before].filter(([limit, value]) => after.get(limit) !== value);
    t.ok(own.length > 0, `${name} raises something`);
    for (const [limit, value] of own) {
      t.ok(after.get(limit)! > value, `${name} raises ${limit}`);
      t.equal(raised.get(limit), undefined, `${limit} has one flag`);
      raised.set(limit, name);
    }
  }
  t.same(
    [...before.keys()].filter((limit) => !raised.has(limit)),
    [],
    'each has a flag',
  );
  t.end();
});

t.test('a timeout of nothing is refused', (t) => {
  for (const name of ['--headers-timeout', '--reader-timeout', '--text-timeout'])
    t.throws(() => parse(name, '0'), { exitCode: 64, message: new RegExp(name) });
  t.end();
});

t.test('docs/http.md names each flag of a limit', (t) => {
  const page = readFileSync(join(packageRoot, 'docs/http.md'), 'utf8');
  const section = page.slice(page.indexOf('## Limits'), page.indexOf('## Metrics'));
  const named = new Set([...section.matchAll(/`(--[a-z-]+)`/g)].map(([, name]) => name));
  for (const { name } of Object.values(limitFlags)) t.ok(named.has(name), name);
  t.end();
});
