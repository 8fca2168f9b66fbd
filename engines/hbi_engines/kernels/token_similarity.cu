// Weighted token-wise interaction of A texts with B clips (hbi_infer/tokens/similarity.py): a block for each pair.
//
//   1/2 (sum_t a_t max_v cos(t, v) + sum_v u_v max_t cos(t, v))
//
// text (A, T, D), text_weights (A, T), video (B, V, D), video_weights (B, V), scores (A, B) float. A weight of 0 marks
// padding: as a partner it is left out, or counts as a cosine of 0 with `padding_is_zero`. Only the cosines of one pair
// exist at a time, in shared memory.
//
// Grid: (B, A). Shared floats: T * V + (T + V) * (PITCH + 2).

KERNEL token_similarity(const Element* text, const Element* text_weights, const Element* video,
                        const Element* video_weights, float* scores, int num_clips, int num_words, int num_frames,
                        int width, int padding_is_zero) {
  int clip = block(0), query = block(1), num_rows = num_words + num_frames;
  text += (long long)query * num_words * width;
  video += (long long)clip * num_frames * width;
  text_weights += (long long)query * num_words;
  video_weights += (long long)clip * num_frames;

  float* cosines = shared;                              // (T, V)
  float* tile = cosines + num_words * num_frames;       // (T + V, PITCH), the words' rows first
  float* length = tile + num_rows * PITCH;              // (T + V)
  float* weight = length + num_rows;                    // (T + V)

  for (int pair = thread(); pair < num_words * num_frames; pair += num_threads()) cosines[pair] = 0.0f;
  for (int row = thread(); row < num_rows; row += num_threads()) {
    length[row] = 0.0f;
    weight[row] = load(row < num_words ? text_weights + row : video_weights + row - num_words);
  }
  for (int first = 0; first < width; first += COLUMNS) {
    load_columns(text, num_words, width, first, tile);
    load_columns(video, num_frames, width, first, tile + num_words * PITCH);
    barrier();
    for (int pair = thread(); pair < num_words * num_frames; pair += num_threads()) {
      const float* word = tile + pair / num_frames * PITCH;
      const float* frame = tile + (num_words + pair % num_frames) * PITCH;
      float sum = 0.0f;
      for (int column = 0; column < COLUMNS; ++column) sum += word[column] * frame[column];
      cosines[pair] += sum;
    }
    for (int row = thread(); row < num_rows; row += num_threads()) {
      float sum = 0.0f;
      for (int column = 0; column < COLUMNS; ++column) sum += tile[row * PITCH + column] * tile[row * PITCH + column];
      length[row] += sum;
    }
    barrier();
  }
  for (int row = thread(); row < num_rows; row += num_threads()) length[row] = fmaxf(sqrtf(length[row]), 1e-12f);
  barrier();
  for (int pair = thread(); pair < num_words * num_frames; pair += num_threads())
    cosines[pair] /= length[pair / num_frames] * length[num_words + pair % num_frames];
  barrier();
  // From here on `length` holds each token's weight times the cosine of its best partner.
  for (int row = thread(); row < num_rows; row += num_threads()) {
    bool is_word = row < num_words;
    int num_partners = is_word ? num_frames : num_words;
    float best = LOWEST;
    for (int partner = 0; partner < num_partners; ++partner) {
      bool real = weight[is_word ? num_words + partner : partner] > 0.0f;
      float cosine = cosines[is_word ? row * num_frames + partner : partner * num_frames + row - num_words];
      if (real || padding_is_zero) best = fmaxf(best, real ? cosine : 0.0f);
    }
    length[row] = weight[row] > 0.0f ? weight[row] * best : 0.0f;
  }
  barrier();
  if (thread() == 0) {
    float words = 0.0f, frames = 0.0f;
    for (int row = 0; row < num_words; ++row) words += length[row];
    for (int row = num_words; row < num_rows; ++row) frames += length[row];
    scores[(long long)query * num_clips + clip] = 0.5f * (words + frames);
  }
}
