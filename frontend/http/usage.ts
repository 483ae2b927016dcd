// Token counts of an answer: a prompt counts once, however many choices it has.
export interface Usage {
  readonly prompt_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens: number };
}

export interface UsageOptions {
  /** Choices of a prompt. */
  readonly n: number;
  /** Says how many prompt tokens were found in the prefix cache. */
  readonly cachedTokens: boolean;
}

/** Counts the tokens of choices as they grow; choice c belongs to prompt floor(c / n). */
export class UsageCounter {
  private readonly promptTokens: readonly number[];
  private readonly options: UsageOptions;
  private readonly outputTokens: number[] = [];
  /** By prompt, as its first choice found them. */
  private readonly cachedTokens: number[] = [];

  constructor(promptTokens: readonly number[], options: UsageOptions) {
    this.promptTokens = promptTokens;
    this.options = options;
  }

  /** numOutputTokens: of this choice, so far. */
  output(choice: number, numOutputTokens: number, numCachedTokens: number): void {
    const { n } = this.options;
    this.outputTokens[choice] = numOutputTokens;
    if (choice % n === 0) this.cachedTokens[choice / n] = numCachedTokens;
  }

  usage(): Usage {
    return this.make(sum(this.promptTokens), sum(this.outputTokens), sum(this.cachedTokens));
  }

  /** Of one choice alone, for usage in every chunk. */
  usageOf(choice: number): Usage {
    const prompt = Math.floor(choice / this.options.n);
    return this.make(
      this.promptTokens[prompt]!,
      this.outputTokens[choice] ?? 0,
      this.cachedTokens[prompt] ?? 0,
    );
  }

  private make(promptTokens: number, completionTokens: number, cachedTokens: number): Usage {
    const usage = {
      prompt_tokens: promptTokens,
      total_tokens: promptTokens + completionTokens,
      completion_tokens: completionTokens,
    };
    return this.options.cachedTokens
      ? { ...usage, prompt_tokens_details: { cached_tokens: cachedTokens } }
      : usage;
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
