#include "models/kernels/rotary_kernel.h"

#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

/// N pairs a turn.
template <int N, class T>
__global__ void turn(RotaryShape s, HeadRows<const T> x, HeadRows<T> y, int64_t first_row, int64_t items) {
  int64_t half = s.width / 2, packs = half / N;
  for (int64_t item = thread_of_grid(); item < items; item += threads_of_grid()) {
    int64_t i = item % packs * N, head = item / packs % s.heads, row = first_row + item / packs / s.heads;
    int64_t batch = row / s.tokens, token = row % s.tokens;
    const T* from = x.data + batch * x.batch + token * x.token + head * x.head + i;
    T* to = y.data + batch * y.batch + token * y.token + head * y.head + i;
    float first[N], second[N], cosine[N], sine[N];
    read<N>(from, first);
    read<N>(from + half, second);
    read<N>(s.cosine + token * half + i, cosine);
    read<N>(s.sine + token * half + i, sine);
    for (int n = 0; n < N; ++n) {
      float a = first[n], b = second[n], turn = s.direction * sine[n];
      first[n] = a * cosine[n] - b * turn;
      second[n] = b * cosine[n] + a * turn;
    }
    write<N>(first, to);
    write<N>(second, to + half);
  }
}

/// Whether packs of n may begin at all rows.
template <class T>
bool packs_fit(const HeadRows<T>& rows, int64_t n) {
  return aligned(rows.data) && rows.batch % n == 0 && rows.head % n == 0 && rows.token % n == 0;
}

template <class T>
void run(const RotaryShape& s, const HeadRows<const T>& x, const HeadRows<T>& y, int64_t begin, int64_t end) {
  constexpr int N = kPack<T>;
  bool packed = s.width / 2 % N == 0 && packs_fit(x, N) && packs_fit(y, N) &&
                reinterpret_cast<uintptr_t>(s.cosine) % sizeof(Pack<float, N>) == 0 &&
                reinterpret_cast<uintptr_t>(s.sine) % sizeof(Pack<float, N>) == 0;
  int64_t items = (end - begin) * s.heads * (s.width / 2) / (packed ? N : 1);
  launch("rotary", packed ? turn<N, T> : turn<1, T>, blocks_for(items), kMostThreads, 0, s, x, y, begin, items);
}

}  // namespace

void rotary(const RotaryShape& shape, const HeadRows<const float>& x, const HeadRows<float>& y, int64_t begin,
            int64_t end) {
  run(shape, x, y, begin, end);
}
void rotary(const RotaryShape& shape, const HeadRows<const Bfloat16>& x, const HeadRows<Bfloat16>& y, int64_t begin,
            int64_t end) {
  run(shape, x, y, begin, end);
}

}  // namespace echelon::kernels::gpu
