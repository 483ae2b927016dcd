// The detokenizer process: tokens of all requests become text here, beside the engine's own thread.
import type { DetokenizerSlice } from '../common/config.ts';
import { runProcess } from '../common/process.ts';
import { createTextService } from '../common/text/text-service.ts';
import { DetokenizerServer } from './server.ts';

runProcess<DetokenizerSlice>('detokenizer', async (context) => {
  const { slice, token, generation, log } = context;
  // The calls of foreign frontends go to threads: nobody's text waits for them.
  const text = createTextService(slice, 0);
  const server = await DetokenizerServer.start({
    slice,
    token,
    generation,
    log,
    text,
    fatal: (error) => context.fatal(error),
  });
  return {
    info: { vocabSize: text.tokenizer.vocabSize, hasChatTemplate: text.hasChatTemplate },
    peerLost: ({ role }) => {
      if (role === 'engine') server.engineLost();
    },
    stop: async () => {
      server.stop();
      await text.close();
    },
  };
});
