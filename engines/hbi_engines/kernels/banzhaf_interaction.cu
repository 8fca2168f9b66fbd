// Exact Banzhaf interaction of words and frames (hbi_infer/tokens/banzhaf.py): a block for each pair of text and video.
//
//   I = 1/2 (dP dM_text + (dQ dM_video)^T)
//
// similarity (B, T, V), text_weights (B, T), video_weights (B, V), masks of the same shapes, interaction (B, T, V).
//
// Grid: (B). Shared floats: 3 T V + max(T, V)^2 + T + V + NODES * (2 max(T, V) + 1).

#define FIRST_NODE -20.0f
#define NODE_STEP 0.5f
#define NUM_NODES 89
#define NODES 16  // nodes of the integral at a time
#define SMALLEST_WEIGHT 1e-9f
#define TINY 1.17549435e-38f

// Scales weights (N,) to a mean of 1 over real tokens; padding gets 0. One thread runs it.
PART void mean_one(const Element* given, const Mask* mask, int size, float* weights) {
  float sum = 0.0f, count = 0.0f;
  for (int token = 0; token < size; ++token) {
    weights[token] = mask[token] ? load(given + token) : 0.0f;
    sum += weights[token];
    count += mask[token] ? 1.0f : 0.0f;
  }
  float mean = fmaxf(sum / fmaxf(count, 1.0f), TINY);
  for (int token = 0; token < size; ++token)
    weights[token] = mask[token] ? fmaxf(weights[token] / mean, SMALLEST_WEIGHT) : 0.0f;
}

// Computes dM (K, N): the amount by which token j raises the best of row k. `row_step` and `column_step` are strides of
// `gains`. `order` (K, N) receives the tokens of each row in descending order.
PART void best_gain(const float* gains, int rows, int columns, int row_step, int column_step, float chance,
                    int* order, float* raised) {
  for (int place = thread(); place < rows * columns; place += num_threads()) {
    int row = place / columns, token = place % columns;
    order[place] = token;  // NaN has no rank: the order stays valid, and the result is NaN
    raised[place] = 0.0f * gains[row * row_step + token * column_step];
  }
  barrier();
  for (int place = thread(); place < rows * columns; place += num_threads()) {
    int row = place / columns, token = place % columns, rank = 0;
    const float* gain = gains + row * row_step;
    for (int other = 0; other < columns; ++other)
      rank += precedes(gain[other * column_step], other, gain[token * column_step], token);
    order[row * columns + rank] = token;
  }
  barrier();
  for (int row = thread(); row < rows; row += num_threads()) {
    float behind = 0.0f;  // expected best of the tokens behind
    for (int rank = columns - 1; rank >= 0; --rank) {
      int token = order[row * columns + rank];
      float gain = gains[row * row_step + token * column_step];
      raised[row * columns + token] = powf(1.0f - chance, (float)rank) * (gain - behind);
      behind = chance * gain + (1.0f - chance) * behind;
    }
  }
  barrier();
}

// Computes dP (N, N) from weights of mean 1: the amount by which token i raises the normalised weight of token k. `own`
// and `step` have room for (N, NODES) each, `measure` for (NODES).
PART void weight_gain(const float* weights, int size, float chance, float* raised, float* own, float* step,
                      float* measure) {
  for (int pair = thread(); pair < size * size; pair += num_threads()) raised[pair] = 0.0f;
  for (int first = 0; first < NUM_NODES; first += NODES) {
    int count = NUM_NODES - first < NODES ? NUM_NODES - first : NODES;
    for (int number = thread(); number < count; number += num_threads()) {
      float node = expf(FIRST_NODE + NODE_STEP * (float)(first + number)), logs = 0.0f;
      for (int token = 0; token < size; ++token) logs += log1pf(chance * expm1f(-weights[token] * node));
      measure[number] = expf(logs) * node * NODE_STEP;
    }
    barrier();
    for (int place = thread(); place < size * count; place += num_threads()) {
      int token = place / count, number = place % count;
      float node = expf(FIRST_NODE + NODE_STEP * (float)(first + number));
      float fall = expm1f(-weights[token] * node), factor = 1.0f + chance * fall;
      own[token * NODES + number] = weights[token] * (1.0f + fall) / factor * measure[number];
      step[token * NODES + number] = chance * fall / factor;
    }
    barrier();
    for (int pair = thread(); pair < size * size; pair += num_threads()) {
      int mine = pair / size, other = pair % size;
      float sum = 0.0f;
      for (int number = 0; number < count; ++number)
        sum += (mine == other ? 1.0f : step[mine * NODES + number]) * own[other * NODES + number];
      raised[pair] += sum;
    }
  }
  barrier();
}

KERNEL banzhaf_interaction(const Element* similarity, const Element* text_weights, const Element* video_weights,
                           const Mask* text_mask, const Mask* video_mask, Element* interaction, int num_words,
                           int num_frames, float chance) {
  int item = block(0), num_pairs = num_words * num_frames;
  int most = num_words > num_frames ? num_words : num_frames;
  similarity += (long long)item * num_pairs;
  interaction += (long long)item * num_pairs;
  text_mask += (long long)item * num_words;
  video_mask += (long long)item * num_frames;

  float* gains = shared;                     // (T, V)
  float* raised_best = gains + num_pairs;    // dM, (T, V) or (V, T)
  float* words_part = raised_best + num_pairs;  // dP dM, (T, V)
  float* raised_weight = words_part + num_pairs;  // dP, (T, T) or (V, V); first the order of best_gain
  float* text = raised_weight + most * most;
  float* video = text + num_words;
  float* own = video + num_frames;
  float* step = own + most * NODES;
  float* measure = step + most * NODES;

  if (thread() == 0) mean_one(text_weights + (long long)item * num_words, text_mask, num_words, text);
  if (thread() == num_threads() - 1)
    mean_one(video_weights + (long long)item * num_frames, video_mask, num_frames, video);
  for (int pair = thread(); pair < num_pairs; pair += num_threads()) {
    bool real = text_mask[pair / num_frames] && video_mask[pair % num_frames];
    float gain = load(similarity + pair);
    gains[pair] = !real || gain < 0.0f ? 0.0f : gain;  // NaN stays NaN
  }
  barrier();
  best_gain(gains, num_words, num_frames, num_frames, 1, chance, (int*)raised_weight, raised_best);
  weight_gain(text, num_words, chance, raised_weight, own, step, measure);
  for (int pair = thread(); pair < num_pairs; pair += num_threads()) {
    int word = pair / num_frames, frame = pair % num_frames;
    float sum = 0.0f;
    for (int other = 0; other < num_words; ++other)
      sum += raised_weight[word * num_words + other] * raised_best[other * num_frames + frame];
    words_part[pair] = sum;
  }
  barrier();
  best_gain(gains, num_frames, num_words, 1, num_frames, chance, (int*)raised_weight, raised_best);
  weight_gain(video, num_frames, chance, raised_weight, own, step, measure);
  for (int pair = thread(); pair < num_pairs; pair += num_threads()) {
    int word = pair / num_frames, frame = pair % num_frames;
    float sum = 0.0f;
    for (int other = 0; other < num_frames; ++other)
      sum += raised_weight[frame * num_frames + other] * raised_best[other * num_words + word];
    store(interaction + pair, 0.5f * (words_part[pair] + sum));
  }
}
