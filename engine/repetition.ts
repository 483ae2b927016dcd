// Whether a request's output ends with one pattern again and again. For each size of pattern it
// counts how many tokens in a row equal the one that lies a pattern before them: a pattern of n
// tokens stands there c times exactly when that count is at least n * (c - 1). So a token costs one
// comparison for each size, however often and however nearly the output repeats itself.
import type { RepetitionDetection } from '../common/sampling-params.ts';

export class RepetitionDetector {
  private readonly minPatternSize: number;
  private readonly minCount: number;
  /** [sizes] tokens in a row that equal the one a pattern before; from minPatternSize on. */
  private readonly runs: Int32Array;

  constructor({ minPatternSize, maxPatternSize, minCount }: RepetitionDetection) {
    this.minPatternSize = minPatternSize;
    this.minCount = minCount;
    this.runs = new Int32Array(maxPatternSize - minPatternSize + 1);
  }

  /**
   * Takes the last of tokenIds[0 .. numTokens), of which those from `first` on are output; every
   * output token must come here once, in order. True if some pattern is there often enough.
   */
  add(tokenIds: Int32Array, first: number, numTokens: number): boolean {
    const { runs, minPatternSize, minCount } = this;
    const last = numTokens - 1;
    const id = tokenIds[last]!;
    let found = false;
    for (let i = 0; i < runs.length; i++) {
      const size = minPatternSize + i;
      // What is shorter than two patterns repeats nothing.
      if (last - size < first) break;
      const run = tokenIds[last - size] === id ? runs[i]! + 1 : 0;
      runs[i] = run;
      if (run >= size * (minCount - 1)) found = true;
    }
    return found;
  }
}
