// Gathers the choices of a Generation into whole outputs, for answers that are not streamed.
import type { GenerateRequest, RequestOutput } from '../engine-client-types.ts';
import type { EngineClientLike } from './backend.ts';
import { Generation, type GenerationObserver } from './generation.ts';
import { mergeOutputs } from './merge-outputs.ts';
import type { OpenRequest } from './open-request.ts';

/** One whole output a choice, in order; rejects with the first error of any. */
export function collectResponse(
  client: EngineClientLike,
  open: OpenRequest,
  requests: readonly GenerateRequest[],
  observer: GenerationObserver,
): Promise<RequestOutput[]> {
  return new Promise((resolve, reject) => {
    const outputs: RequestOutput[][] = [];
    let numFinished = 0;
    const generation: Generation = new Generation(
      requests,
      {
        output: (choice, output) => {
          (outputs[choice] ??= []).push(output);
          generation.consumed(choice, output.creditBytes);
          if (output.finishReason === 'none') return;
          if (++numFinished === generation.numChoices) resolve(outputs.map(mergeOutputs));
        },
        failed: reject,
      },
      observer,
    );
    open.run(generation, client).catch(reject);
  });
}
