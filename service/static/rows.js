// The form of numbers is the browser's own; this adds the curl line of the row that was answered.

import { offerCurl } from "./curl.js";
import "./feedback.js";

const row = [...document.querySelectorAll(".number input")].map((input) => input.valueAsNumber);
offerCurl(`-H 'Content-Type: application/json' -d '${JSON.stringify(row)}'`);
