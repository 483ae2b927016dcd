// Builds the columns of TextOutputs from rows that are easy to write in a test.
import {
  finishReasons,
  textOutputsColumns,
  type FinishReason,
  type TextOutputs,
} from '../../../common/wire/messages.ts';
import { makeColumn } from '../../common/wire/make-column.ts';

export interface Entry {
  readonly id: number;
  readonly logprob: number;
  readonly rank: number;
  readonly bytes: string;
}

export interface TextRow {
  readonly requestId: number;
  readonly text?: string;
  readonly tokenIds?: readonly number[];
  readonly finishReason?: FinishReason;
  readonly stopTokenId?: number;
  readonly stopStringIndex?: number;
  readonly numPromptTokens?: number;
  readonly numCachedTokens?: number;
  readonly numOutputTokens?: number;
  /** Entries of each token in tokenIds. */
  readonly logprobs?: readonly (readonly Entry[])[];
  readonly promptLogprobs?: Readonly<Record<number, readonly Entry[]>>;
}

export function textColumns(rows: readonly TextRow[]): TextOutputs['columns'] {
  const lists: Record<string, number[]> = {};
  for (const name in textOutputsColumns) lists[name] = [];
  const push = (name: keyof typeof textOutputsColumns, ...values: number[]) =>
    lists[name]!.push(...values);
  const pushEntries = (prefix: 'logprob' | 'promptLogprob', entries: readonly Entry[]) => {
    for (const { id, logprob, rank, bytes } of entries) {
      push(`${prefix}Ids`, id);
      push(`${prefix}s`, logprob);
      push(`${prefix}Ranks`, rank);
      push(`${prefix}TextStart`, lists[`${prefix}Text`]!.length);
      push(`${prefix}Text`, ...Buffer.from(bytes));
    }
  };
  rows.forEach((row, i) => {
    const tokenIds = row.tokenIds ?? [];
    push('requestId', row.requestId);
    push('textStart', lists['text']!.length);
    push('text', ...Buffer.from(row.text ?? ''));
    push('tokenStart', lists['tokenIds']!.length);
    push('tokenIds', ...tokenIds);
    push('finishReason', finishReasons.indexOf(row.finishReason ?? 'none'));
    push('stopTokenId', row.stopTokenId ?? -1);
    push('stopStringIndex', row.stopStringIndex ?? -1);
    push('numPromptTokens', row.numPromptTokens ?? 0);
    push('numCachedTokens', row.numCachedTokens ?? 0);
    push('numOutputTokens', row.numOutputTokens ?? 0);
    tokenIds.forEach((_, k) => {
      const entries = row.logprobs?.[k] ?? [];
      push('logprobCount', entries.length);
      pushEntries('logprob', entries);
    });
    for (const [position, entries] of Object.entries(row.promptLogprobs ?? {})) {
      push('promptLogprobRow', i);
      push('promptLogprobPosition', Number(position));
      push('promptLogprobCount', entries.length);
      pushEntries('promptLogprob', entries);
    }
  });
  push('textStart', lists['text']!.length);
  push('tokenStart', lists['tokenIds']!.length);
  push('logprobTextStart', lists['logprobText']!.length);
  push('promptLogprobTextStart', lists['promptLogprobText']!.length);
  return Object.fromEntries(
    Object.entries(textOutputsColumns).map(([name, type]) => [
      name,
      makeColumn(type, lists[name]!),
    ]),
  ) as unknown as TextOutputs['columns'];
}
