// What a build says on its way. The files that it compiles are one line, which on a terminal is
// written over and over; VLLM_LOGGING_LEVEL=DEBUG gives each a line of its own.

/**
 * A function that says `line` after `prefix`. With `step` ({ number, total, module }) it is one of
 * many alike; with `isOutput` it is what a compiler has said, as it is.
 */
export function createReport(
  prefix,
  { out = process.stderr, isVerbose = process.env.VLLM_LOGGING_LEVEL === 'DEBUG' } = {},
) {
  const isLive = out.isTTY === true && process.env.TERM !== 'dumb';
  let hasOpenLine = false;
  const clear = () => {
    if (hasOpenLine) out.write('\r\x1b[2K');
    hasOpenLine = false;
  };
  return (line, { step = null, isOutput = false } = {}) => {
    if (step !== null && !isVerbose && !isLive) {
      const files = step.total === 1 ? 'file' : 'files';
      if (step.number === 1) out.write(`${prefix}compile ${step.total} ${files} of ${step.module}\n`);
      return;
    }
    clear();
    if (step !== null && !isVerbose) {
      const text = `${prefix}${step.number} of ${step.total}: ${line}`;
      out.write(text.slice(0, (out.columns || 80) - 1));
      hasOpenLine = true;
    } else out.write(isOutput ? line : `${prefix}${line}\n`);
  };
}
