// Loaded into every process of a server (node --import) by a test: rank 1 of the first generation
// reads another token than the others at the start of a request, from some step on.
import { processEnv } from '../../common/process.ts';
import { stepInputColumns } from '../../common/wire/step.ts';
import { NativeBackend } from '../../kernels/native-backend.ts';

const firstWrongStep = 8;
const { [processEnv.index]: index, [processEnv.generation]: generation } = process.env;
const isRank1 = /[/\\]worker[/\\]main\.js$/.test(process.argv[1] ?? '') && index === '1';

if (isRank1 && generation === '0') {
  // The rule fears a lost `this`; the method is called with its own below, by `submit.call(this`.
  // eslint-disable-next-line @typescript-eslint/unbound-method
  const { submit } = NativeBackend.prototype;
  const column = Object.keys(stepInputColumns).indexOf('newTokenIds');
  NativeBackend.prototype.submit = function (step, numTokens, body, table): void {
    const [offset, count] = [table[2 * column]!, table[2 * column + 1]!];
    const changed = body.slice();
    if (step >= firstWrongStep && count > 0) changed[offset]! ^= 1;
    submit.call(this, step, numTokens, changed, table);
  };
}
