// The lockfile is what npm writes, on every machine the same: no registry's address in it, every
// package with its checksum, and no platform package that a registry mirror may lack.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

interface Entry {
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly inBundle?: boolean;
}

const { packages } = JSON.parse(readFileSync(join(packageRoot, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, Entry>;
};
const installed = Object.entries(packages).filter(([path]) => path.includes('node_modules/'));

t.test('the lockfile names no registry', (t) => {
  const withAddress = installed.filter(([, entry]) => entry.resolved?.includes('://'));
  t.same(withAddress, [], 'npm adds addresses without omit-lockfile-registry-resolved in .npmrc');
  t.end();
});

t.test('every package has its checksum', (t) => {
  const bare = installed.filter(([, { integrity, link, inBundle }]) => !integrity && !link && !inBundle); // prettier-ignore
  t.same(
    bare.map(([path]) => path),
    [],
    'an entry typed by hand: where a registry lacks an optional package, override it in package.json as msgpackr-extract is, then run npm install --package-lock-only',
  );
  t.end();
});

t.test("msgpackr's native reader stays a stand-in", (t) => {
  t.match(packages['node_modules/msgpackr-extract'], { link: true });
  t.same(
    installed.map(([path]) => path).filter((path) => path.includes('@msgpackr-extract/')),
    [],
  );
  t.end();
});
