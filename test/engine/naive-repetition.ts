// What repetition_detection means, said as plainly as possible: some pattern of minPatternSize to
// maxPatternSize tokens, repeated minCount times, is the end of the output.
import type { RepetitionDetection } from '../../common/sampling-params.ts';

export function endsInPattern(
  output: readonly number[],
  { minPatternSize, maxPatternSize, minCount }: RepetitionDetection,
): boolean {
  for (let size = minPatternSize; size <= maxPatternSize; size++) {
    if (size * minCount > output.length) return false;
    const pattern = output.slice(output.length - size);
    const wanted = Array.from({ length: minCount }, () => pattern).flat();
    if (wanted.join() === output.slice(output.length - wanted.length).join()) return true;
  }
  return false;
}
