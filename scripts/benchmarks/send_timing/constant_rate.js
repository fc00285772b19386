// k6: posts an image at a constant rate, whatever the answers.
// k6 run -e URL=http://127.0.0.1:8080/predict -e IMAGE=cat.png -e RATE=100 -e DURATION=12s constant_rate.js

import http from "k6/http";

const image = open(__ENV.IMAGE, "b");

export const options = {
  discardResponseBodies: true,
  scenarios: {
    constant: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE),
      timeUnit: "1s",
      duration: __ENV.DURATION,
      preAllocatedVUs: 50,
    },
  },
};

export default function () {
  http.post(__ENV.URL, image, { headers: { "Content-Type": "image/png" } });
}
