// Reads server-sent events with fetch, because EventSource cannot send an Authorization header.

/** The events of a response as they arrive: "event: snapshot\ndata: {}\n\n" becomes {name: "snapshot", data: "{}"}. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop(); // the last block may still be incomplete
    for (const block of blocks) {
      let name = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      }
      if (data.length) yield { name, data: data.join("\n") };
    }
  }
}

export const bearer = (key) => (key ? { authorization: `Bearer ${key}` } : {});

/** What a response with an error says. */
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  return body?.error?.message ?? `The gateway responded with status ${response.status}.`;
}

/** Follow the console's stream and reconnect when it ends. `on` has a function for each event, and state(word). */
export async function follow(on) {
  for (;;) {
    try {
      const response = await fetch("console/events", { headers: bearer(sessionStorage.getItem("console-key")) });
      if (response.status === 401) {
        on.state("locked");
        return;
      }
      if (!response.ok) throw new Error(`status ${response.status}`);
      on.state("live");
      for await (const { name, data } of events(response)) on[name]?.(JSON.parse(data));
    } catch (error) {
      console.info(`the stream ended: ${error.message}`);
    }
    on.state("waiting");
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
