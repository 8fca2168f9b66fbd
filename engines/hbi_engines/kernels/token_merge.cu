// Groups tokens by density peaks and averages each group by score (hbi_training/model/token_merge.py, "masked"): a
// block for each clip.
//
// tokens (B, N, D), score (B, N) float, mask (B, N) -> merged (B, C, D), cluster_mask (B, C), slots (B, N) with -1 at
// padding, and bias (B, N) float, which the attention of the merged tokens adds to its logits: -inf at padding.
//
// Grid: (B). Shared floats: N * N + N * (PITCH + 7) + C.

KERNEL token_merge(const Element* tokens, const float* score, const Mask* mask, Element* merged, Mask* cluster_mask,
                   Slot* slots, float* bias, int num_tokens, int width, int num_slots, float ratio, int neighbours) {
  int item = block(0);
  tokens += (long long)item * num_tokens * width;
  merged += (long long)item * num_slots * width;
  score += (long long)item * num_tokens;
  mask += (long long)item * num_tokens;
  cluster_mask += (long long)item * num_slots;
  slots += (long long)item * num_tokens;
  bias += (long long)item * num_tokens;

  float* distance = shared;                            // (N, N)
  float* tile = distance + num_tokens * num_tokens;    // (N, PITCH)
  float* density = tile + num_tokens * PITCH;          // (N), -1 at padding, as in `peak`
  float* peak = density + num_tokens;
  float* furthest = peak + num_tokens;                 // (N), largest distance of each row
  float* share = furthest + num_tokens;                // (N)
  int* is_centre = (int*)(share + num_tokens);         // (N)
  int* slot = is_centre + num_tokens;                  // (N)
  int* real = slot + num_tokens;                       // (N)
  int* centre = real + num_tokens;                     // (C)

  for (int pair = thread(); pair < num_tokens * num_tokens; pair += num_threads()) distance[pair] = 0.0f;
  for (int token = thread(); token < num_tokens; token += num_threads()) real[token] = mask[token] != 0;
  for (int first = 0; first < width; first += COLUMNS) {
    load_columns(tokens, num_tokens, width, first, tile);
    barrier();
    for (int pair = thread(); pair < num_tokens * num_tokens; pair += num_threads()) {
      const float* one = tile + pair / num_tokens * PITCH;
      const float* other = tile + pair % num_tokens * PITCH;
      float sum = 0.0f;
      for (int column = 0; column < COLUMNS; ++column) {
        float difference = one[column] - other[column];
        sum += difference * difference;
      }
      distance[pair] += sum;
    }
    barrier();
  }
  for (int pair = thread(); pair < num_tokens * num_tokens; pair += num_threads())
    distance[pair] = sqrtf(distance[pair] / (float)width);
  barrier();

  // The density is exp(-mean squared distance to the nearest tokens, itself included).
  for (int token = thread(); token < num_tokens; token += num_threads()) {
    const float* row = distance + token * num_tokens;
    float largest = 0.0f, squares = 0.0f, last = -1.0f;
    int found = 0, last_index = -1;
    for (int other = 0; other < num_tokens; ++other)
      if (real[token] && real[other]) largest = fmaxf(largest, row[other]);
    while (found < neighbours) {  // the nearest token behind the last one, ties by index
      int best = -1;
      for (int other = 0; other < num_tokens; ++other) {
        bool behind = row[other] > last || (row[other] == last && other > last_index);
        if (real[other] && behind && (best < 0 || row[other] < row[best])) best = other;
      }
      if (best < 0) break;
      last = row[best];
      last_index = best;
      squares += last * last;
      ++found;
    }
    furthest[token] = largest;
    density[token] = real[token] ? expf(-squares / (float)(found > 0 ? found : 1)) : -1.0f;
  }
  barrier();

  // A peak is dense and far from every denser token; the densest has the largest distance of all.
  for (int token = thread(); token < num_tokens; token += num_threads()) {
    float nearest = 0.0f;
    for (int other = 0; other < num_tokens; ++other) nearest = fmaxf(nearest, furthest[other]);
    for (int other = 0; other < num_tokens; ++other)
      if (precedes(density[other], other, density[token], token))
        nearest = fminf(nearest, distance[token * num_tokens + other]);
    peak[token] = real[token] ? density[token] * nearest : -1.0f;
  }
  barrier();

  int num_real = 0;
  for (int token = 0; token < num_tokens; ++token) num_real += real[token];
  // `volatile` forbids a fused multiply-add: 10 tokens at a ratio of 0.4 are 4 clusters.
  volatile float wanted = (float)num_real * ratio;
  int num_clusters = (int)ceilf(wanted - 1e-6f);
  num_clusters = num_clusters < 1 ? 1 : (num_clusters > num_slots ? num_slots : num_clusters);
  for (int token = thread(); token < num_tokens; token += num_threads()) {
    int rank = 0;
    for (int other = 0; other < num_tokens; ++other) rank += precedes(peak[other], other, peak[token], token);
    is_centre[token] = rank < num_clusters;
  }
  barrier();
  for (int token = thread(); token < num_tokens; token += num_threads()) {
    int before = 0;  // slots are in the order of time
    for (int other = 0; other < token; ++other) before += is_centre[other];
    if (is_centre[token]) centre[before] = token;
    slot[token] = before;
  }
  barrier();
  float highest = LOWEST;
  for (int token = 0; token < num_tokens; ++token)
    if (real[token]) highest = fmaxf(highest, score[token]);
  for (int token = thread(); token < num_tokens; token += num_threads()) {
    if (!is_centre[token]) {
      int nearest = 0;
      for (int other = 1; other < num_clusters; ++other)
        if (distance[centre[other] * num_tokens + token] < distance[centre[nearest] * num_tokens + token])
          nearest = other;
      slot[token] = nearest;
    }
    share[token] = real[token] ? expf(score[token] - highest) : 0.0f;
    slots[token] = real[token] ? slot[token] : -1;
    bias[token] = real[token] ? score[token] : MINUS_INFINITY;
  }
  for (int place = thread(); place < num_slots; place += num_threads()) cluster_mask[place] = place < num_clusters;
  barrier();

  for (int column = thread(); column < width; column += num_threads()) {
    for (int place = 0; place < num_slots; ++place) {
      float sum = 0.0f, weight = 0.0f;
      for (int token = 0; token < num_tokens; ++token)
        if (slot[token] == place && real[token]) {
          sum += share[token] * load(tokens + (long long)token * width + column);
          weight += share[token];
        }
      store(merged + (long long)place * width + column, sum / (weight + 1e-6f));
    }
  }
}
