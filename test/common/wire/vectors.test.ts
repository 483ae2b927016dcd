import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { defaultSamplingParams, defaultTextParams } from '../../../common/sampling-params.ts';
import { decodeMessage } from '../../../common/wire/codec.ts';
import { receive, type LinkMessages } from '../../../common/wire/receive.ts';
import { specs } from '../../../common/wire/specs.ts';
import { sampleMessages } from '../../fixtures/wire/samples.ts';
import { toJson, vectorOf, type Vector } from '../../fixtures/wire/vectors.ts';

const folder = join(packageRoot, 'test/fixtures/wire');
const links = Object.keys(specs) as (keyof LinkMessages)[];

function vectors(link: string): Record<string, Vector> {
  const name = link.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as Record<string, Vector>;
}

t.test('every message is encoded to its golden bytes and decoded from them', (t) => {
  for (const link of links) {
    const golden = vectors(link);
    t.same(Object.keys(golden).sort(), Object.keys(specs[link]).sort(), `${link}: every kind`);
    for (const [kind, message] of Object.entries(sampleMessages[link]!)) {
      const { header, body, message: json } = golden[kind]!;
      t.same(vectorOf(message), golden[kind], `${link} ${kind}: encodes`);
      const frames = [header, ...(body === null ? [] : [body])].map((hex) =>
        Buffer.from(hex, 'hex'),
      );
      const decoded = receive(link, decodeMessage(frames));
      t.same(toJson(decoded), json, `${link} ${kind}: decodes`);
    }
  }
  t.end();
});

t.test('every kind that is declared has a vector', (t) => {
  const source = ['common', 'frontend', 'server', 'nodes']
    .map((name) => readFileSync(join(packageRoot, `common/wire/messages-${name}.ts`), 'utf8'))
    .join('');
  const declared = new Set([...source.matchAll(/readonly kind: '(\w+)'/g)].map((m) => m[1]!));
  const covered = new Set(links.flatMap((link) => Object.keys(vectors(link))));
  t.ok(declared.size > 30);
  t.same([...declared].sort(), [...covered].sort());
  t.end();
});

t.test('docs/protocol.md names every kind, field and column of the public links', (t) => {
  const text = readFileSync(join(packageRoot, 'docs/protocol.md'), 'utf8');
  const named = new Set([...text.matchAll(/[`*]([a-zA-Z]+)\b/g)].map((match) => match[1]!));
  const isPublic = (link: string) => link.includes('rontend');
  const missing = links.filter(isPublic).flatMap((link) =>
    Object.entries(sampleMessages[link]!).flatMap(([kind, message]) => {
      const { columns = {}, ...fields } = message;
      const names = [kind, ...Object.keys(fields), ...Object.keys(columns)];
      return names.filter((name) => !named.has(name)).map((name) => `${link} ${kind} ${name}`);
    }),
  );
  t.same(missing, []);
  for (const name of [...Object.keys(defaultSamplingParams), ...Object.keys(defaultTextParams)])
    t.ok(text.includes(`\`${name}\``), name);
  const { header, body } = vectors('frontendToEngine')['abort']!;
  const example = /```\n([0-9a-f \n]+)```/.exec(text)![1]!.replace(/\s/g, '');
  t.equal(example, `${header}${body}`, 'the example is the golden vector');
  t.end();
});

t.test('Python decodes every vector with msgpack and struct', (t) => {
  const probe = spawnSync('python3', ['-c', 'import msgpack']);
  if (probe.status !== 0) {
    t.pass('skipped', { skip: 'python3 with msgpack is absent' });
    return t.end();
  }
  const run = spawnSync('python3', [join(folder, 'decode.py')], { encoding: 'utf8' });
  t.equal(run.stderr, '');
  const count = links.reduce((sum, link) => sum + Object.keys(vectors(link)).length, 0);
  t.equal(Number(run.stdout), count);
  t.end();
});
