// Token counts of an answer: a prompt counts once, however many choices it has.
export interface Usage {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens: number;
}

function usage(promptTokens: number, completionTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    total_tokens: promptTokens + completionTokens,
    completion_tokens: completionTokens,
  };
}

/** Counts the tokens of choices as they grow; choice c belongs to prompt floor(c / n). */
export class UsageCounter {
  private readonly promptTokens: readonly number[];
  private readonly outputTokens: number[] = [];

  constructor(promptTokens: readonly number[]) {
    this.promptTokens = promptTokens;
  }

  /** numOutputTokens: of this choice, so far. */
  output(choice: number, numOutputTokens: number): void {
    this.outputTokens[choice] = numOutputTokens;
  }

  usage(): Usage {
    return usage(sum(this.promptTokens), sum(this.outputTokens));
  }

  /** Of one choice alone, for usage in every chunk. */
  usageOf(choice: number, n: number): Usage {
    return usage(this.promptTokens[Math.floor(choice / n)]!, this.outputTokens[choice] ?? 0);
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
