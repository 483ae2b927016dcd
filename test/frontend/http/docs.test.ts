// docs/http.md says what the schemas say: every field, every metric, every route.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { defaultHttpLimits } from '../../../common/limits.ts';
import { makeChatSchema } from '../../../frontend/http/schema/chat-schema.ts';
import { makeCompletionSchema } from '../../../frontend/http/schema/completion-schema.ts';
import { startServer } from './fakes.ts';

const chatSchema = makeChatSchema(defaultHttpLimits);
const completionSchema = makeCompletionSchema(defaultHttpLimits);
const page = readFileSync(join(packageRoot, 'docs/http.md'), 'utf8');
const section = (from: string, to: string) => page.slice(page.indexOf(from), page.indexOf(to));
const names = (text: string) => new Set([...text.matchAll(/`([a-z_]+)`/g)].map((m) => m[1]!));

t.test('fields', (t) => {
  const documented = names(section('## Fields', "A field of vLLM's"));
  const fields = new Set([
    ...Object.keys(completionSchema.object.shape),
    ...Object.keys(chatSchema.object.shape),
    ...completionSchema.accepted,
  ]);
  const others =
    'null none enable_thinking include_usage continuous_usage_stats prompt_token_ids token_ids'.split(
      ' ',
    );
  for (const field of fields) t.ok(documented.has(field), `${field} is documented`);
  for (const name of documented) {
    t.ok(fields.has(name) || others.includes(name), `${name} is a field`);
  }
  t.end();
});

t.test('metrics', async (t) => {
  const { url } = await startServer(t);
  const text = await (await fetch(`${url}/metrics`)).text();
  const served = [...text.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1]!);
  const documented = [...page.slice(page.indexOf('## Metrics')).matchAll(/`([a-z0-9_:]+)`/g)].map(
    (m) => m[1]!,
  );
  t.same(served.filter((name) => !name.startsWith('process_')).sort(), documented.sort());
});

t.test('routes', async (t) => {
  const { url } = await startServer(t, { enableDebugTimeline: true });
  const rows = [...section('## Routes', '## Fields').matchAll(/^\| (`.*?) \|/gm)];
  const paths = rows.flatMap(([, cell]) => [...cell!.matchAll(/\/[a-z0-9/]+/g)].map(([m]) => m));
  t.equal(paths.length, 13);
  for (const path of paths) {
    const response = await fetch(url + path);
    t.ok([200, 405].includes(response.status) || path === '/v1/models/', path);
  }
});
