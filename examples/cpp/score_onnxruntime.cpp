// Scores PNG pictures with an exported network (.onnx), using ONNX Runtime and libpng alone.
//
//     score_onnxruntime model.onnx picture.png...
//
// Prints for each picture what examples/onnx_only.py prints: verdict, displayed score (1 is the threshold), share of marked pixels.
// Pictures of 16 bits are refused, and EXIF does not turn them: see picture.hpp.
// The verdict is by the thresholds as they were at the export: OK, look (a person decides), NG, or ERROR, where a value is NaN or
// infinite, with exit status 2. Whatever is not OK must not pass.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>

#include "picture.hpp"

namespace {

constexpr std::array<const char*, 4> verdicts{"OK", "look", "NG", "ERROR"};

}  // namespace

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "usage: %s NETWORK PICTURE...\n", words[0]);
        return 2;
    }
    int status = 0;
    try {
        Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "andon");
        Ort::Session session(environment, words[1], Ort::SessionOptions{});
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const char* const inputs[] = {"images"};
        const char* const outputs[] = {"score", "anomaly_map", "verdict"};
        for (int k = 2; k < count; ++k) {
            Picture picture = read_picture(words[k]);
            const std::array<std::int64_t, 4> shape{1, static_cast<std::int64_t>(picture.height),
                                                    static_cast<std::int64_t>(picture.width), 3};  // any size
            const auto images = Ort::Value::CreateTensor<std::uint8_t>(
                memory, picture.pixels.data(), picture.pixels.size(), shape.data(), shape.size());
            const auto answers = session.Run(Ort::RunOptions{}, inputs, &images, 1, outputs, 3);
            const float score = answers[0].GetTensorData<float>()[0];
            const float* cells = answers[1].GetTensorData<float>();
            const std::size_t size = answers[1].GetTensorTypeAndShapeInfo().GetElementCount();
            const auto marked = std::count_if(cells, cells + size, [](float v) { return v >= 1.0f; });
            const int verdict = answers[2].GetTensorData<std::int32_t>()[0];
            status = verdict == 3 ? 2 : status;
            std::printf("%s %.6f %.4f %s\n", verdicts.at(verdict), score,
                        static_cast<double>(marked) / static_cast<double>(size), words[k]);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "score_onnxruntime: %s\n", error.what());
        return 2;
    }
    return status;
}
