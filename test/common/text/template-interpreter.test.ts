// strip, lstrip, rstrip and trim as Python's jinja2 has them; what is expected here it has said.
import t from 'tap';
import { ChatTemplate } from '../../../common/text/chat-template.ts';
import { stripText } from '../../../common/text/template-interpreter.ts';
import { Tokenizer } from '../../../common/text/tokenizer.ts';
import { demoPath } from './support.ts';

const tokenizer = Tokenizer.load(demoPath, 2048);

function render(template: string, content: string): string {
  const options = { addGenerationPrompt: false, continueFinalMessage: false };
  return new ChatTemplate(tokenizer, template, 'test').render(
    [{ role: 'assistant', content }],
    options,
  ).text;
}

t.test('what is stripped, from where', (t) => {
  for (const [text, method, chars, expected] of [
    ['  a b  ', 'strip', null, 'a b'],
    ['  a b  ', 'lstrip', null, 'a b  '],
    ['  a b  ', 'rstrip', null, '  a b'],
    ['\n\n  a\n', 'lstrip', '\n', '  a\n'],
    ['xyxaxy', 'strip', 'yx', 'a'],
    ['xyxaxy', 'strip', '', 'xyxaxy'],
    ['\u0085\u001c\u00a0a\u3000', 'strip', null, 'a'],
    ['\ufeffa\u200b', 'strip', null, '\ufeffa\u200b'],
    ['😀a😀😁', 'strip', '😀', 'a😀😁'],
    ['😀😀', 'rstrip', '😀', ''],
    ['a\ud83d', 'rstrip', '\ud83d', 'a'],
    ['', 'strip', null, ''],
  ] as const)
    t.equal(stripText(text, method, chars), expected, JSON.stringify([text, method, chars]));
  t.end();
});

t.test('in templates: methods, the filter, and slices beside them', (t) => {
  const content = '{{ messages[0].content';
  t.equal(render(`${content}.strip() }}`, ' a '), 'a');
  t.equal(render(`${content}.lstrip('\\n') }}`, '\n\n  a'), '  a');
  t.equal(render(`${content} | trim }}|`, '\ufeff a '), '\ufeff a|');
  t.equal(render(`${content} | trim('xy') }}`, 'xyaxy'), 'a');
  t.equal(render(`${content}[1:].strip() + '|' }}`, 'ab '), 'b|');
  t.equal(render(`{{ messages[0:1] | length }}`, 'a'), '1');
  t.throws(() => render(`{{ (1).strip() }}`, 'a'), { code: 'bad_request' });
  t.throws(() => render(`{{ nothing.strip() }}`, 'a'), { code: 'bad_request' });
  t.end();
});

t.test('the thoughts of an assistant, as the template of Qwen3 takes them out', (t) => {
  const template =
    "{%- set content = messages[0].content %}{%- if '</think>' in content %}" +
    "{%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}" +
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}" +
    "{{- thoughts.strip('\\n') + '|' + content }}";
  t.equal(render(template, '<think>\n  reason \n\n</think>\n\n  answer\n'), '  reason |  answer\n');
  t.end();
});
