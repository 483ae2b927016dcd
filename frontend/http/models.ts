// GET /v1/models, and whether a request's model is one of ours.
import type { HttpConfig } from '../../common/config.ts';
import { RequestError } from '../../common/errors.ts';
import { maxModelLen, type HttpContext } from './context.ts';

export function checkModel(model: string | undefined, config: HttpConfig): void {
  if (model === undefined || config.servedModelNames.includes(model)) return;
  const names = config.servedModelNames.join(', ');
  throw new RequestError('not_found', `the model does not exist; served here: ${names}`, 'model');
}

export function modelList(context: HttpContext) {
  const { servedModelNames } = context.config;
  return { object: 'list', data: servedModelNames.map((id) => modelCard(context, id)) };
}

export function modelOf(context: HttpContext, id: string) {
  checkModel(id, context.config);
  return modelCard(context, id);
}

function modelCard(context: HttpContext, id: string) {
  const { config, createdAt } = context;
  return {
    id,
    object: 'model',
    created: createdAt,
    owned_by: 'vllm-ts',
    root: config.servedModelNames[0],
    parent: null,
    max_model_len: maxModelLen(context),
  };
}
