// Ask the gateway for indicators over HTTP, then follow a standing request over the WebSocket.
//
//     mdplatform worker &  mdplatform gateway &
//     export MDPLATFORM_KEY=$(mdplatform keys create --name typescript)
//     node --experimental-strip-types request.ts       (Node 22.6 and later; so do Deno, Bun, and bundlers for browsers)
//     npx tsx --experimental-websocket request.ts      (Node 20.10 and later)

declare const process: { env: Record<string, string | undefined> };

const gateway: string = process.env.MDPLATFORM_GATEWAY ?? "http://127.0.0.1:8080";
const key: string = process.env.MDPLATFORM_KEY ?? "";

interface Row {
  open_time: string;
  available_at: string;
  settled: boolean;
  reason?: string; // why an output is null
  [output: string]: unknown; // such as rsi: number | null
}

interface Result {
  kind: "feature" | "correlation" | "series";
  symbol: string;
  timeframe: string;
  feature: string;
  source: "cache" | "computed" | "run";
  version: string;
  rows?: Row[];
  symbols?: string[]; // of a correlation, with its matrix
  matrix?: (number | null)[][];
}

interface Answer {
  request_id: string;
  status: "open" | "ok" | "partial" | "rejected" | "failed";
  final: boolean;
  number: number;
  results: Result[];
  missing: { symbol: string; cause: string; remedy: string }[];
  problem: { cause: string; remedy: string } | null;
}

interface Problem {
  status: number;
  detail: string;
  field?: string;
  remedy?: string;
  retry_after_seconds?: number;
}

async function call<Told>(method: string, path: string, body?: object): Promise<Told> {
  const response = await fetch(gateway + path, {
    method,
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  if (!response.ok) {
    const problem: Problem = await response.json();
    throw new Error(`${problem.field ?? path}: ${problem.detail}`);
  }
  return response.json();
}

// Sends a request and waits for its answer, however long that takes: its deadline ends it.
async function ask(request: object): Promise<Answer> {
  let answer: Answer = await call("POST", "/v1/requests?wait=20s", request);
  while (answer.status === "open") {
    answer = await call("GET", `/v1/requests/${answer.request_id}?wait=20s`);
  }
  return answer;
}

// Sends requests over the WebSocket and hands over each answer, until all have their final one. A connection that
// breaks is made again: to send the same request_id again is harmless, and what was answered meanwhile comes then.
function follow(requests: object[], onAnswer: (answer: Answer, cancel: () => void) => void): Promise<void> {
  const open = new Map(requests.map((each) => [crypto.randomUUID() as string, each]));
  return new Promise((resolve) => {
    const connect = () => {
      const socket = new WebSocket(`${gateway.replace(/^http/, "ws")}/v1/answers`, [
        "mdplatform.v1",
        `mdplatform.key.${key}`,
      ]);
      socket.onopen = () => {
        const unanswered = [...open].map(([request_id, request]) => ({ ...request, request_id }));
        socket.send(JSON.stringify({ op: "batch", requests: unanswered }));
      };
      socket.onmessage = (event) => {
        const told = JSON.parse(event.data);
        if (told.event === "refused") {
          throw new Error(told.problem.detail);
        }
        if (told.event === "answer") {
          if (told.final) open.delete(told.request_id);
          onAnswer(told, () => socket.send(JSON.stringify({ op: "cancel", request_id: told.request_id })));
          if (open.size === 0) socket.close();
        }
      };
      socket.onclose = () => (open.size === 0 ? resolve() : void setTimeout(connect, 1000));
    };
    connect();
  });
}

const indicators = {
  type: "TECHNICAL_INDICATORS",
  strategy_id: "momentum_strategy_001",
  symbols: ["BTCUSDT", "ETHUSDT"],
  indicators: [
    { name: "RSI", parameters: { period: 14 } },
    { name: "MACD", parameters: { fast: 12, slow: 26, signal: 9 } },
  ],
  timeframes: ["15m", "1h"],
  priority: "HIGH",
};

async function main(): Promise<void> {
  const answer: Answer = await ask(indicators);
  for (const result of answer.results) {
    console.log(result.symbol, result.timeframe, result.feature, JSON.stringify(result.rows?.at(-1)));
  }

  await ask({ ...indicators, indicators: ["RSY"] }).catch((refused) => console.log("refused:", refused.message));

  await follow([{ ...indicators, refresh: "on_close", deadline: 60 }], (update, cancel) => {
    console.log("update", update.number > 0, update.status, update.final ? "and the last" : "");
    if (!update.final) cancel();
  });
}

main();
