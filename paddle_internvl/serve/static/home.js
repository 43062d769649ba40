// Model and load of the server, read from /v1/models and /metrics.
const PERIOD = 2000; // milliseconds between two readings of the load
let last = null, timer = null;

const write = (id, value) => { element(id).textContent = value ?? '–'; };

async function showModel() {
    const [model] = (await (await read('v1/models')).json()).data;
    for (const name of ['id', 'device']) write(name, model[name]);
    write('dtype', [model.dtype, model.quantization].filter(Boolean).join(' + '));
    for (const name of ['parameters', 'max_model_len']) write(name, model[name].toLocaleString('en'));
    for (const code of document.querySelectorAll('pre code'))
        code.textContent = code.textContent.replaceAll('"MODEL"', JSON.stringify(model.id));
}

// Gauges and counters of the engine, in Prometheus' text.
async function showLoad() {
    const text = await (await read('metrics')).text();
    const value = name => Number(text.match(new RegExp(`^paddle_internvl_engine_${name} (\\S+)`, 'm'))?.[1]);
    const now = {time: performance.now(), tokens: value('generated_tokens_total')};
    write('running', value('running'));
    write('waiting', value('waiting'));
    write('cache', `${Math.round(100 * value('blocks_used') / value('blocks_total'))} %`);
    if (last) write('speed', Math.max(0, 1000 * (now.tokens - last.tokens) / (now.time - last.time)).toFixed(1));
    last = now;
}

for (const code of document.querySelectorAll('pre code'))
    code.textContent = code.textContent.replaceAll('ORIGIN', location.href.replace(/\/$/, ''));
element('language').addEventListener('click', () => {
    document.documentElement.lang = document.documentElement.lang === 'en' ? 'zh-CN' : 'en';
});
withKey(async () => {
    await showModel();
    const follow = async () => {
        clearTimeout(timer);
        try {
            if (!document.hidden) await showLoad();
        } finally {
            timer = setTimeout(follow, PERIOD); // also while the server restarts
        }
    };
    await follow();
});
