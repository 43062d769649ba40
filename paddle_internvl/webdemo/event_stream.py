"""Event stream of a page, without the events that Gradio's client loses.

In: nothing. Out: a script for the page. The server closes the stream of results (SSE, /queue/data) when no event waits,
and the client opens another one with its next event (/queue/join) unless the old one is open still. An event that is
joined after the server has closed the stream, but before the client has read so, is never answered on the page. The
script keeps the client's stream open for good, and reads from the server behind it for as long as an event waits.
"""

SCRIPT = """() => {
    const fetch = window.fetch.bind(window), encoder = new TextEncoder(), waiting = new Set();
    let read = () => {}, connection = new AbortController();

    const join = async request => {
        const response = await fetch(...request);
        const {event_id} = response.ok ? await response.clone().json() : {};
        if (event_id) waiting.add(event_id);
        read();
        return response;
    };

    // Messages of one connection; true: the server closed the stream as usual.
    const forward = async (address, controller, signal) => {
        const response = await fetch(address, {signal});
        if (!response.ok) throw response;
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = '', closed = false;
        for (let part = await reader.read(); !part.done; part = await reader.read()) {
            const blocks = (rest + part.value).split('\\n\\n');
            rest = blocks.pop();
            for (const block of blocks) {
                const {msg, event_id} = JSON.parse(block.slice('data:'.length));
                if (msg === 'process_completed') waiting.delete(event_id);
                if (msg === 'close_stream') closed = true;
                else controller.enqueue(encoder.encode(block + '\\n\\n'));
            }
        }
        return closed;
    };

    const stream = address => {
        connection.abort();
        const {signal} = connection = new AbortController();
        return new ReadableStream({
            start(controller) {
                let reading = false;
                read = async () => {
                    if (reading || signal.aborted) return;
                    reading = true;
                    try {
                        let closed = true;
                        while (closed && waiting.size) closed = await forward(address, controller, signal);
                        if (!closed) controller.close();
                    } catch (error) {
                        if (!signal.aborted) controller.error(error);
                    }
                    reading = false;
                };
                read();
            },
            cancel() { connection.abort(); },
        });
    };

    window.fetch = async (...request) => {
        const address = request[0].url ?? String(request[0]);
        if (address.includes('/queue/join')) return join(request);
        if (!address.includes('/queue/data')) return fetch(...request);
        return new Response(stream(address), {headers: {'Content-Type': 'text/event-stream'}});
    };
}"""
