// openai for Node: node examples/clients/with_openai.mjs http://127.0.0.1:8080/v1 tiny [KEY]
import OpenAI from "openai";

const [baseURL, model, apiKey = "none"] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });

const { data, response } = await client.chat.completions
  .create({ model, messages: [{ role: "user", content: "What is (3+4)*5-9?" }] })
  .withResponse();
console.log("answer:", data.choices[0].message.content.trim());
console.log("tier:", response.headers.get("x-thinkmeter-tier"), "because:", response.headers.get("x-thinkmeter-reason"));
console.log("tokens:", data.usage.completion_tokens);

const stream = await client.chat.completions.create({
  model: `${model}:direct`, // a pinned tier
  messages: [{ role: "user", content: "What is 3+4?" }],
  stream: true,
});
let streamed = "";
for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";
console.log("streamed:", streamed);
