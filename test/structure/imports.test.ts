// A folder is a process: the import rule of docs/architecture.md, checked on every source file.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const allowed: Readonly<Record<string, readonly string[]>> = {
  common: ['common'],
  engine: ['engine', 'common'],
  frontend: ['frontend', 'common'],
  detokenizer: ['detokenizer', 'common'],
  worker: ['worker', 'kernels', 'common'],
  kernels: ['kernels', 'common'],
};

const importPattern =
  /(?:^|\s)(?:import|export)\b[^'"]*?from\s*['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|^import\s+['"]([^'"]+)['"]/gm;

for (const [folder, targets] of Object.entries(allowed))
  t.test(`${folder} imports only ${targets.join(', ')}`, (t) => {
    const files = readdirSync(join(packageRoot, folder), { recursive: true })
      .map(String)
      .filter((name) => name.endsWith('.ts'));
    t.ok(files.length > 0, 'has files');
    for (const file of files) {
      const path = join(folder, file);
      const text = readFileSync(join(packageRoot, path), 'utf8');
      for (const match of text.matchAll(importPattern)) {
        const specifier = match[1] ?? match[2] ?? match[3]!;
        if (!specifier.startsWith('.')) continue;
        const target = relative(packageRoot, join(packageRoot, dirname(path), specifier));
        t.ok(targets.includes(target.split('/')[0]!), `${path} imports ${target}`);
        t.match(specifier, /\.ts$/, `${path}: ${specifier} ends in .ts`);
      }
    }
    t.end();
  });
