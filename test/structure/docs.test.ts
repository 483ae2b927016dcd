// Documents rot where they name files: every path in backticks that looks like one of ours exists.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';

const documents = [
  ...readdirSync(packageRoot).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(packageRoot, 'docs')).map((name) => join('docs', name)),
].filter((name) => name.endsWith('.md'));

const folders =
  'common|engine|worker|frontend|detokenizer|kernels|scripts|test|docs|models|examples';
const pathPattern = new RegExp(`\`((?:${folders})/[\\w./-]*)\``, 'g');
const linkPattern = /\]\((?!https?:|#|mailto:)([^)#\s]+)/g;

for (const document of documents)
  t.test(document, (t) => {
    const text = readFileSync(join(packageRoot, document), 'utf8');
    for (const match of text.matchAll(pathPattern))
      t.ok(existsSync(join(packageRoot, match[1]!)), `\`${match[1]!}\``);
    for (const match of text.matchAll(linkPattern))
      t.ok(existsSync(join(packageRoot, document, '..', match[1]!)), `link ${match[1]!}`);
    t.pass('read');
    t.end();
  });
